import math

import numpy as np
import paddle
import pytest
from helpers import Pointwise, classifier

from paddle_sparse_cb import BestCheckpoint, EMACallback, InputError, SparseEarlyStopping, SparsityCallback
from paddle_sparse_cb.utils.weight_files import load_arrays


class FallingMetric(paddle.metric.Metric):
    """A metric whose best value comes with the first evaluation, when the network is still dense."""

    def __init__(self, name="falling"):
        super().__init__()
        self._name = name
        self.evaluations = 0

    def name(self):
        return self._name

    def compute(self, *_):
        return paddle.zeros([1])

    def update(self, _):
        return 0.0

    def accumulate(self):
        return 1.0 / (1 + self.evaluations)

    def reset(self):
        """Called by hapi at the end of each training epoch and each evaluation."""
        self.evaluations += 1


def train(data, folder, *callbacks, epochs=4, sparsity=None, metric="falling"):
    network = Pointwise()
    model = classifier(network)
    model.prepare(model._optimizer, paddle.nn.CrossEntropyLoss(), FallingMetric(metric))
    model.fit(
        data,
        data,
        epochs=epochs,
        batch_size=16,
        verbose=0,
        save_dir=str(folder),
        save_freq=99,
        callbacks=[*([sparsity] if sparsity else []), *callbacks],
    )
    return network


def zero_ratio(file):
    return float((load_arrays(file)["expand.weight"] == 0).mean())


def pruning_callback():
    """Reaches its target ratio at step 16, in the second epoch of ten steps."""
    return SparsityCallback(ratio=0.75, pruning_iterations=15, pruning_steps=3)


def test_hapis_early_stopping_keeps_a_model_from_before_the_target_ratio(first_digits, tmp_path):
    train(
        first_digits,
        tmp_path,
        paddle.callbacks.EarlyStopping("falling", mode="max", patience=99, verbose=0),
        sparsity=pruning_callback(),
    )
    assert zero_ratio(tmp_path / "best_model.pdparams") < 0.75


@pytest.mark.parametrize("ema", [(), (EMACallback(),)])
@pytest.mark.parametrize("kind", ["stopping", "checkpoint"])
def test_the_best_model_is_at_the_target_ratio(first_digits, tmp_path, kind, ema):
    callback = (
        SparseEarlyStopping("falling", mode="max", patience=99, verbose=0)
        if kind == "stopping"
        else BestCheckpoint(tmp_path, "falling")
    )
    network = train(first_digits, tmp_path, callback, *ema, sparsity=pruning_callback())
    assert zero_ratio(tmp_path / "best_model.pdparams") == 0.75
    saved = load_arrays(tmp_path / "best_model.pdparams")
    assert (saved["expand.weight"] != network.expand.weight.numpy()).any()  # saved in the second epoch, not in the last


def test_patience_counts_only_evaluations_at_the_target_ratio(first_digits, tmp_path):
    sparsity = pruning_callback()
    train(
        first_digits,
        tmp_path,
        SparseEarlyStopping("falling", mode="max", patience=1, verbose=0),
        epochs=9,
        sparsity=sparsity,
    )
    assert sparsity.pruner.cur_iteration == 30  # best in the second epoch, no improvement in the third
    assert sparsity.pruner.ratio == 0.75


def test_without_pruning_every_evaluation_counts(first_digits, tmp_path):
    train(
        first_digits,
        tmp_path,
        BestCheckpoint(tmp_path / "highest", "falling"),
        BestCheckpoint(tmp_path / "lowest", "falling", "min"),
        epochs=2,
    )
    first, second = (load_arrays(tmp_path / name / "best_model.pdparams") for name in ("highest", "lowest"))
    final = load_arrays(tmp_path / "final.pdparams")
    np.testing.assert_array_equal(second["head.weight"], final["head.weight"])
    assert (first["head.weight"] != final["head.weight"]).any()
    assert not (tmp_path / "highest" / "final.pdparams").exists()


def test_a_nan_metric_is_never_the_best(tmp_path):
    best = BestCheckpoint(tmp_path, "falling")
    best.set_model(classifier(Pointwise()))
    best.on_eval_end({"falling": math.nan})
    assert not list(tmp_path.iterdir())


def test_an_unknown_metric_or_mode_is_an_input_error(first_digits, tmp_path):
    with pytest.raises(InputError, match="the evaluation has no metric 'mAP'; it has .*falling"):
        train(first_digits, tmp_path, BestCheckpoint(tmp_path, "mAP"), epochs=1)
    with pytest.raises(InputError, match="mode must be max or min"):
        BestCheckpoint(tmp_path, mode="best")


def test_a_metric_of_an_earlier_training_in_the_process_is_not_monitored(first_digits, tmp_path):
    train(first_digits, tmp_path, epochs=1, metric="other")
    with pytest.raises(InputError, match="the evaluation has no metric 'other'"):
        train(first_digits, tmp_path, BestCheckpoint(tmp_path, "other"), epochs=1)
