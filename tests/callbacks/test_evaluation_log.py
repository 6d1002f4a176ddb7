import json

import paddle
import pytest
from helpers import Pointwise, classifier

from paddle_sparse_cb import Checkpoints, InputError, ResumableCallbacks, SkipBatchesLoader, SparsityCallback
from paddle_sparse_cb.callbacks.evaluation_log import EvaluationLog, best_by_sparsity, read_evaluations


def fit(digits, path, resume=None):
    loaders = [SkipBatchesLoader(paddle.io.DataLoader(digits, batch_size=80)) for _ in range(2)]
    sparsity = SparsityCallback(ratio=0.75, stable_epochs=1, pruning_epochs=1, tunning_epochs=2, pruning_steps=1)
    callbacks = [sparsity, Checkpoints(path.parent), EvaluationLog(path, ("acc",))]
    with paddle.utils.unique_name.guard():
        classifier(Pointwise()).fit(
            *loaders,
            epochs=4,
            verbose=0,
            callbacks=[ResumableCallbacks(callbacks, loaders[0], loaders[1], resume=resume)],
        )


def test_each_evaluation_is_logged_with_its_sparsity(first_digits, tmp_path):
    fit(first_digits, tmp_path / "evaluations.json")
    rows = read_evaluations(tmp_path / "evaluations.json")
    assert [row["epoch"] for row in rows] == [0, 1, 2, 3]
    assert [row["sparsity"] for row in rows] == pytest.approx([0, 0.15, 0.75, 0.75], abs=1e-3)
    assert all(0 <= row["acc"] <= 1 for row in rows)


def test_a_resumed_training_keeps_the_rows_before_its_position_and_a_new_training_keeps_none(first_digits, tmp_path):
    path = tmp_path / "evaluations.json"
    fit(first_digits, path)
    path.write_text(json.dumps([{"epoch": epoch, "sparsity": 0.5, "acc": 2.0} for epoch in range(3)]))
    fit(first_digits, path, tmp_path / "2.pdsparse")
    assert [row["acc"] == 2 for row in read_evaluations(path)][:3] == [True, True, False]
    fit(first_digits, path)
    assert all(row["acc"] != 2 for row in read_evaluations(path))


def test_the_best_row_of_each_sparsity():
    rows = [
        {"epoch": 0, "sparsity": 0.1, "mAP": 0.5},
        {"epoch": 1, "sparsity": 0.7501, "mAP": 0.3},
        {"epoch": 2, "sparsity": 0.75, "mAP": 0.4},
        {"epoch": 3, "sparsity": 0.75, "mAP": 0.2},
    ]
    assert [row["epoch"] for row in best_by_sparsity(rows, "mAP")] == [0, 2]


def test_rows_without_a_value_of_the_metric_are_never_the_best():
    rows = [
        {"epoch": 0, "sparsity": 0.75, "mAP": None},
        {"epoch": 1, "sparsity": 0.75, "mAP": 0.1},
        {"epoch": 2, "sparsity": 0.75},
    ]
    assert [row["epoch"] for row in best_by_sparsity(rows, "mAP")] == [1]


def test_a_metric_that_is_not_finite_is_logged_as_null(first_digits, tmp_path):
    class NanAccuracy(paddle.metric.Accuracy):
        def accumulate(self):
            return float("nan")

    model, path = classifier(Pointwise()), tmp_path / "evaluations.json"
    model._metrics = [NanAccuracy()]
    model.fit(first_digits, first_digits, epochs=1, batch_size=80, verbose=0, callbacks=[EvaluationLog(path, ["acc"])])
    assert json.loads(path.read_text(), parse_constant=pytest.fail) == [{"epoch": 0, "sparsity": 0.0, "acc": None}]
    assert read_evaluations(path) == [{"epoch": 0, "sparsity": 0.0, "acc": None}]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "3",
        "[3]",
        '[{"epoch": 1}]',
        '[{"epoch": "1", "sparsity": 0}]',
        '{"epoch": 1}',
        "[" * 9999,
        '[{"epoch": 1, "sparsity": 0, "mAP": "high"}]',
    ],
)
def test_a_damaged_log_is_an_input_error_that_names_the_file(tmp_path, text):
    (tmp_path / "evaluations.json").write_text(text)
    with pytest.raises(InputError, match=r"evaluations\.json: not a valid evaluation log"):
        read_evaluations(tmp_path / "evaluations.json")
