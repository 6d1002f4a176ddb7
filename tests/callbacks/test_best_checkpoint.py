import math

import numpy as np
import paddle
import pytest
from helpers import Pointwise, classifier

from paddle_sparse_cb import BestCheckpoint, EMACallback, InputError, SparseEarlyStopping, SparsityCallback
from paddle_sparse_cb.utils.weight_files import load_arrays


class Falling(paddle.metric.Metric):
    """A figure that is best at the first evaluation, and so where the network is dense."""

    def __init__(self):
        super().__init__()
        self.evaluations = 0

    def name(self):
        return "figure"

    def compute(self, *_):
        return paddle.zeros([1])

    def update(self, _):
        return 0.0

    def accumulate(self):
        return 1.0 / (1 + self.evaluations)

    def reset(self):
        """Hapi calls this at the end of a training epoch and of an evaluation."""
        self.evaluations += 1


def train(data, folder, *callbacks, epochs=4, sparsity=None):
    network = Pointwise()
    model = classifier(network)
    model.prepare(model._optimizer, paddle.nn.CrossEntropyLoss(), Falling())
    model.fit(data, data, epochs=epochs, batch_size=16, verbose=0, save_dir=str(folder), save_freq=99,
              callbacks=[*([sparsity] if sparsity else []), *callbacks])
    return network


def zeros(file):
    return float((load_arrays(file)["expand.weight"] == 0).mean())


def pruning():
    """Reaches 0.75 at the 16th step, in the second of the epochs of ten."""
    return SparsityCallback(ratio=0.75, pruning_iterations=15, pruning_steps=3)


def test_hapis_own_keeps_a_model_from_before_the_target(first_digits, tmp_path):
    train(first_digits, tmp_path, paddle.callbacks.EarlyStopping("figure", mode="max", patience=99, verbose=0),
          sparsity=pruning())
    assert zeros(tmp_path / "best_model.pdparams") < 0.75


@pytest.mark.parametrize("ema", [(), (EMACallback(),)])
@pytest.mark.parametrize("kind", ["stopping", "checkpoint"])
def test_the_best_model_is_one_at_the_target_ratio(first_digits, tmp_path, kind, ema):
    made = (SparseEarlyStopping("figure", mode="max", patience=99, verbose=0) if kind == "stopping"
            else BestCheckpoint(tmp_path, "figure"))
    network = train(first_digits, tmp_path, made, *ema, sparsity=pruning())
    assert zeros(tmp_path / "best_model.pdparams") == 0.75
    saved = load_arrays(tmp_path / "best_model.pdparams")
    assert (saved["expand.weight"] != network.expand.weight.numpy()).any()  # of the second epoch, not the last


def test_patience_counts_from_the_target_on(first_digits, tmp_path):
    sparsity = pruning()
    train(first_digits, tmp_path, SparseEarlyStopping("figure", mode="max", patience=1, verbose=0), epochs=9,
          sparsity=sparsity)
    assert sparsity.pruner.cur_iteration == 30  # best at the end of the second epoch, not better after the third
    assert sparsity.pruner.ratio == 0.75


def test_without_pruning_the_best_is_the_best_from_the_first_on(first_digits, tmp_path):
    train(first_digits, tmp_path, BestCheckpoint(tmp_path / "highest", "figure"),
          BestCheckpoint(tmp_path / "lowest", "figure", "min"), epochs=2)
    first, second = (load_arrays(tmp_path / name / "best_model.pdparams") for name in ("highest", "lowest"))
    final = load_arrays(tmp_path / "final.pdparams")
    np.testing.assert_array_equal(second["head.weight"], final["head.weight"])
    assert (first["head.weight"] != final["head.weight"]).any()
    assert not (tmp_path / "highest" / "final.pdparams").exists()


def test_a_figure_that_is_nan_is_never_the_best(tmp_path):
    made = BestCheckpoint(tmp_path, "figure")
    made.set_model(classifier(Pointwise()))
    made.on_eval_end({"figure": math.nan})
    assert not list(tmp_path.iterdir())


def test_a_figure_that_is_not_there_and_a_mode_that_is_none_are_errors(first_digits, tmp_path):
    with pytest.raises(InputError, match="the evaluation has no metric 'mAP'; it has .*figure"):
        train(first_digits, tmp_path, BestCheckpoint(tmp_path, "mAP"), epochs=1)
    with pytest.raises(InputError, match="mode must be max or min"):
        BestCheckpoint(tmp_path, mode="best")
