import json

import pytest
from helpers import Pointwise, classifier

from paddle_sparse_cb import InputError, SparsityCallback
from paddle_sparse_cb.callbacks.evaluation_log import EvaluationLog, best_by_sparsity, read_evaluations
from paddle_sparse_cb.callbacks.resume import TrainingPosition


def fit(digits, path, place=None):
    sparsity = SparsityCallback(ratio=0.75, stable_epochs=1, pruning_epochs=1, tunning_epochs=2, pruning_steps=1)
    classifier(Pointwise()).fit(digits, digits, epochs=4, batch_size=80, verbose=0,
                                callbacks=[sparsity, EvaluationLog(path, ("acc",), place)])


def test_each_evaluation_is_kept_with_its_sparsity(first_digits, tmp_path):
    fit(first_digits, tmp_path / "evaluations.json")
    rows = read_evaluations(tmp_path / "evaluations.json")
    assert [row["epoch"] for row in rows] == [0, 1, 2, 3]
    assert [row["sparsity"] for row in rows] == pytest.approx([0, 0.15, 0.75, 0.75], abs=1e-3)
    assert all(0 <= row["acc"] <= 1 for row in rows)


def test_a_training_that_goes_on_keeps_what_came_before(first_digits, tmp_path):
    path = tmp_path / "evaluations.json"
    path.write_text(json.dumps([{"epoch": epoch, "sparsity": 0.5, "acc": 2.0} for epoch in range(3)]))
    fit(first_digits, path, TrainingPosition(2, 1))
    assert [row["acc"] == 2 for row in read_evaluations(path)][:3] == [True, True, False]
    fit(first_digits, path)
    assert all(row["acc"] != 2 for row in read_evaluations(path))


def test_the_best_of_each_level():
    rows = [{"epoch": 0, "sparsity": 0.1, "mAP": 0.5}, {"epoch": 1, "sparsity": 0.7501, "mAP": 0.3},
            {"epoch": 2, "sparsity": 0.75, "mAP": 0.4}, {"epoch": 3, "sparsity": 0.75, "mAP": 0.2}]
    assert [row["epoch"] for row in best_by_sparsity(rows, "mAP")] == [0, 2]


@pytest.mark.parametrize("text", ["", "{", "3", '[{"epoch": 1}]', '[{"epoch": "1", "sparsity": 0}]', "[" * 9999])
def test_a_damaged_file_is_named(tmp_path, text):
    (tmp_path / "evaluations.json").write_text(text)
    with pytest.raises(InputError, match=r"evaluations\.json: no log of evaluations"):
        read_evaluations(tmp_path / "evaluations.json")
