import numpy as np
import paddle
import pytest
from helpers import Pointwise, classifier

from paddle_sparse_cb import (
    BatchNormRecalibration,
    Checkpoints,
    InputError,
    ResumableCallbacks,
    SkipBatchesLoader,
    SparsityCallback,
    find_checkpoint,
)
from paddle_sparse_cb.utils.weight_files import load_arrays

BATCH, BATCHES = 40, 4


class RecordInputs(paddle.callbacks.Callback):
    """Records the means and variances over each batch of what the batch norm is given."""

    def set_model(self, model):
        super().set_model(model)
        self.means, self.variances = [], []
        model.network.bn.register_forward_pre_hook(self._record)

    def _record(self, layer, inputs):
        if layer.training:
            array = inputs[0].numpy().astype("float64")
            self.means.append(array.mean((0, 2, 3)))
            self.variances.append(array.var((0, 2, 3)))


def fit(data, callbacks, epochs=2, **keywords):
    """Trains from seeded weights; returns the network."""
    with paddle.utils.unique_name.guard():
        paddle.seed(3)
        model = classifier(Pointwise(), learning_rate=0.05)
        model.fit(data, epochs=epochs, batch_size=BATCH, verbose=0, callbacks=callbacks, **keywords)
    return model.network


@pytest.mark.parametrize(("batches", "averaged"), [(3, 3), (6, 6), (99, 8)])
def test_running_statistics_are_the_means_of_the_last_batches(first_digits, batches, averaged):
    record = RecordInputs()
    network = fit(first_digits, [record, BatchNormRecalibration(batches)])
    np.testing.assert_allclose(network.bn._mean.numpy(), np.mean(record.means[-averaged:], 0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        network.bn._variance.numpy(), np.mean(record.variances[-averaged:], 0), rtol=2e-3, atol=1e-6
    )
    assert {network.bn._momentum, network.stem[1]._momentum} == {0.9}


def test_training_is_not_changed_but_for_the_running_statistics(first_digits):
    plain, other = (fit(first_digits, callbacks).state_dict() for callbacks in ([], [BatchNormRecalibration(5)]))
    different = {name for name in plain if (plain[name].numpy() != other[name].numpy()).any()}
    assert different == {f"{norm}.{what}" for norm in ("stem.1", "bn") for what in ("_mean", "_variance")}


def test_the_last_batches_are_those_before_num_iters(first_digits):
    record = RecordInputs()
    network = fit(first_digits, [record, BatchNormRecalibration(2)], num_iters=7)
    assert len(record.means) == 7
    np.testing.assert_allclose(network.bn._mean.numpy(), np.mean(record.means[-2:], 0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("interrupted", [2, 5, 6])
def test_a_training_resumed_among_the_last_batches_is_the_same_bit_for_bit(first_digits, tmp_path, interrupted):
    class Interrupt(paddle.callbacks.Callback):
        left = interrupted

        def on_train_batch_begin(self, step, logs=None):
            self.left -= 1
            if self.left < 0:
                raise InterruptedError

    def train(folder, *others):
        loader = SkipBatchesLoader(paddle.io.DataLoader(first_digits, batch_size=BATCH, shuffle=True))
        sparsity = SparsityCallback(ratio=0.75, pruning_epochs=1, tunning_epochs=1, pruning_steps=2)
        callbacks = [BatchNormRecalibration(4), sparsity, Checkpoints(folder, every_batches=1), *others]
        fit(loader, [ResumableCallbacks(callbacks, loader, resume=find_checkpoint(folder))])
        return load_arrays(folder / "final.pdparams")

    whole = train(tmp_path / "whole")
    with pytest.raises(InterruptedError):
        train(tmp_path / "resumed", Interrupt())
    resumed = train(tmp_path / "resumed")
    assert all((resumed[name] == whole[name]).all() for name in whole)
    assert (whole["project.weight"] == 0).mean() == 0.75


def test_momenta_are_given_back_after_an_exception(first_digits):
    class Fail(paddle.callbacks.Callback):
        def on_train_batch_end(self, step, logs=None):
            raise InterruptedError

    network = Pointwise()
    with pytest.raises(InterruptedError):
        classifier(network).fit(
            first_digits, batch_size=BATCH, verbose=0, callbacks=[Fail(), BatchNormRecalibration(99)]
        )
    assert network.bn._momentum == 0.9


def test_bad_arguments_are_input_errors():
    for batches in (0, -1, 1.5, True, "all"):
        with pytest.raises(InputError, match="batches"):
            BatchNormRecalibration(batches)
