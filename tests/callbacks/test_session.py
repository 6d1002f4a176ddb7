"""The callbacks of one `fit` share a session: their order makes no difference, and nothing outlives the `fit`."""

import errno
import hashlib
import itertools
import subprocess
import sys
import warnings

import paddle
import pytest
from helpers import Pointwise, classifier, curves, same_on_paddle_3

from paddle_sparse_cb import (
    BestCheckpoint,
    Checkpoints,
    EMACallback,
    InputError,
    SparseEarlyStopping,
    SparsityCallback,
    find_checkpoint,
    measure_sparsity,
)
from paddle_sparse_cb.callbacks.evaluation_log import EvaluationLog
from paddle_sparse_cb.callbacks.session import FitCallback
from paddle_sparse_cb.checkpoints.state import load_state
from paddle_sparse_cb.utils.weight_files import load_arrays

NAMES = ("sparsity", "checkpoints", "ema", "best", "log", "hapi")


def pruning(**keywords):
    return SparsityCallback(
        **{"ratio": 0.75, "pruning_iterations": 2, "pruning_steps": 2, "tunning_iterations": 0, **keywords}
    )


def fit_in_order(folder, order):
    """Trains with the callbacks in this order; returns digests of our final files and the arrays of hapi's."""
    paddle.seed(3)
    data = [(paddle.rand([4, 6]), paddle.randint(0, 4, [4, 1])) for _ in range(2)]  # batches; a loader starts threads
    callbacks = {
        "sparsity": pruning(pruning_iterations=1, prune_params_type=None),
        "checkpoints": Checkpoints(folder, every=9),
        "ema": EMACallback(0.9),
        "best": BestCheckpoint(folder, "acc"),
        "log": EvaluationLog(folder / "evaluations.json", ("acc",)),
        "hapi": paddle.callbacks.ModelCheckpoint(9, str(folder / "hapi")),
    }
    with paddle.utils.unique_name.guard():
        network = paddle.nn.Sequential(paddle.nn.Linear(6, 8), paddle.nn.BatchNorm1D(8), paddle.nn.Linear(8, 4))
        classifier(network).fit(data, data, epochs=2, verbose=0, callbacks=[callbacks[name] for name in order])
    files = sorted([*folder.glob("final.*"), *folder.glob("best_model.*"), folder / "evaluations.json"])
    digests = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    return digests, {name: array.tobytes() for name, array in load_arrays(folder / "hapi/final.pdparams").items()}


@pytest.fixture(scope="module")
def in_reference_order(tmp_path_factory):
    return fit_in_order(tmp_path_factory.mktemp("reference"), NAMES)


@pytest.mark.slow
@pytest.mark.parametrize("first", [NAMES[0], *(pytest.param(name, marks=same_on_paddle_3) for name in NAMES[1:])])
def test_every_order_of_the_callbacks_gives_the_same_final_files(tmp_path, in_reference_order, first):
    ours, hapis = in_reference_order
    assert {"final.pdparams", "final.pdopt", "final.pdema", "final.pdsparse", "best_model.pdsparse"} <= ours.keys()
    for number, rest in enumerate(itertools.permutations([name for name in NAMES if name != first])):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert fit_in_order(folder, (first, *rest)) == (ours, hapis), (first, *rest)


def test_the_final_checkpoint_has_masks_step_and_averages_whichever_callback_comes_first(tmp_path):
    for order in (("sparsity", "ema", "checkpoints"), ("checkpoints", "ema", "sparsity")):
        folder = tmp_path / order[0]
        folder.mkdir()
        fit_in_order(folder, (*order, "best", "log", "hapi"))
        state = load_state(folder / "final.pdsparse")
        assert state.step == 4
        assert set(state.masks) == {"0.weight", "2.weight"}
        assert "final.pdema" in state.files


class InterruptAt(paddle.callbacks.Callback):
    """Raises `KeyboardInterrupt` when an event is called for the first time, as Ctrl-C does."""

    def __init__(self, event):
        super().__init__()
        self.event = event

    def __getattribute__(self, name):
        if name == super().__getattribute__("__dict__").get("event"):
            raise KeyboardInterrupt
        return super().__getattribute__(name)


@pytest.mark.parametrize("event", ["on_train_batch_begin", "on_train_batch_end", "on_epoch_end", "on_eval_begin"])
def test_ctrl_c_in_fit_detaches_pruner_and_average(first_digits, event):
    network = Pointwise()
    model = classifier(network)
    with pytest.raises(KeyboardInterrupt):
        model.fit(
            first_digits,
            first_digits,
            batch_size=40,
            verbose=0,
            callbacks=[pruning(), EMACallback(), InterruptAt(event)],
        )
    assert not {"step", "minimize"} & vars(model._optimizer).keys()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="this network was pruned")
        model.fit(first_digits, batch_size=40, verbose=0)
    assert measure_sparsity(network).ratio < 0.01


class FailAtTheEnd(FitCallback):
    """Fails when the callbacks are closed, as a full disk does."""

    stage = 9  # closed before the others

    def close(self):
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("failing", "error"),
    [
        (InterruptAt("on_train_begin"), KeyboardInterrupt),
        (InterruptAt("on_train_batch_end"), KeyboardInterrupt),
        (InterruptAt("on_eval_begin"), KeyboardInterrupt),
        (InterruptAt("on_train_end"), KeyboardInterrupt),
        (FailAtTheEnd(), OSError),
    ],
)
def test_checkpoints_after_a_fit_that_failed_have_neither_its_masks_nor_its_average(
    first_digits, tmp_path, failing, error
):
    def train(*callbacks):
        model.fit(first_digits, first_digits, batch_size=40, verbose=0, callbacks=[Checkpoints(tmp_path), *callbacks])

    model = classifier(Pointwise())
    with pytest.raises(error):
        train(pruning(), EMACallback(), failing)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a fit that ended, and whose zeros will be lost
        train()
    assert not {"step", "minimize"} & vars(model._optimizer).keys()
    for name in ("0", "final"):
        state = load_state(tmp_path / f"{name}.pdsparse")
        assert (state.masks, state.step, state.training["ema"]) == ({}, 0, None)
        assert set(state.files) == {f"{name}.pdparams", f"{name}.pdopt"}
    assert not list(tmp_path.glob("*.pdema"))


def test_a_later_fit_without_the_callback_warns_once_that_the_zeros_will_be_lost(first_digits):
    network = Pointwise()
    classifier(network).fit(first_digits, batch_size=40, verbose=0, callbacks=[pruning()])
    model = classifier(network)
    with pytest.warns(
        UserWarning,
        match=r"pruned to 75.00% by an earlier fit, and this fit has no SparsityCallback.*"
        r"SparsityCallback\(ratio=0.75, curve='constant', pruning_epochs=0\)",
    ):
        model.fit(first_digits, batch_size=40, verbose=0)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="this network was pruned")
        model.fit(first_digits, batch_size=40, verbose=0)


def test_the_fit_that_the_warning_recommends_keeps_the_zeros(first_digits):
    network = Pointwise()
    for callback in (pruning(), SparsityCallback(ratio=0.75, curve="constant", pruning_epochs=0)):
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="this network was pruned")
            classifier(network).fit(first_digits, batch_size=40, verbose=0, callbacks=[callback])
        assert measure_sparsity(network, callback.pruner.plan).ratio == 0.75


def test_the_first_callback_of_a_process_may_be_created_in_the_call_of_fit(tmp_path):
    code = """
import zlib, paddle  # as the package does
from paddle_sparse_cb import SparsityCallback, measure_sparsity
network = paddle.nn.Linear(8, 4)
model = paddle.Model(network)
model.prepare(paddle.optimizer.SGD(0.1, parameters=network.parameters()), paddle.nn.CrossEntropyLoss())
data = paddle.io.TensorDataset([paddle.rand([8, 8]), paddle.zeros([8, 1], "int64")])
model.fit(data, batch_size=4, verbose=0, callbacks=[
    SparsityCallback(pruning_epochs=0, prune_params_type=None)])
print(measure_sparsity(network).ratio)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.split() == ["0.75"], done.stderr


def test_two_pruners_or_averages_in_one_fit_are_an_error(first_digits):
    for callbacks, name in (
        ([pruning(), pruning()], "SparsityCallbacks"),
        ([EMACallback(), EMACallback()], "EMACallbacks"),
    ):
        model = classifier(Pointwise())
        with pytest.raises(InputError, match=f"two {name} in one fit"):
            model.fit(first_digits, batch_size=40, verbose=0, callbacks=callbacks)
        assert not {"step", "minimize"} & vars(model._optimizer).keys()


class RecordLosses(paddle.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_end(self, step, logs=None):
        self.seen.append(logs["loss"][0])


def test_the_training_loss_curve_never_shows_the_loss_of_an_evaluation(first_digits, tmp_path):
    losses = RecordLosses()
    classifier(Pointwise()).fit(
        first_digits,
        first_digits,
        epochs=1,
        batch_size=40,
        verbose=0,
        shuffle=False,
        callbacks=[pruning(log_dir=tmp_path, log_freq=3), losses],
    )
    points = dict(curves(tmp_path)["train/loss"])
    assert points == {step: pytest.approx(losses.seen[step - 1], rel=1e-6) for step in (3, 4)}


def test_hapi_still_calls_no_callback_when_fit_raises():
    """The patch in callbacks/compat.py can be removed when this test fails."""
    calls = []

    class RecordCalls(paddle.callbacks.Callback):
        def __getattribute__(self, name):
            calls.append(name)
            return super().__getattribute__(name)

        def on_train_batch_end(self, step, logs=None):
            calls.clear()
            raise KeyboardInterrupt

    data = paddle.io.TensorDataset([paddle.rand([4, 1, 8, 8]), paddle.zeros([4, 1], "int64")])
    with pytest.raises(KeyboardInterrupt):
        classifier(Pointwise()).fit(data, batch_size=2, verbose=0, callbacks=[RecordCalls()])
    assert calls == []


def test_pruner_average_and_checkpoint_count_the_same_steps_under_gradient_accumulation(first_digits, tmp_path):
    sparsity, ema = pruning(), EMACallback()
    classifier(Pointwise()).fit(
        first_digits,
        epochs=2,
        batch_size=16,
        verbose=0,
        accumulate_grad_batches=4,
        callbacks=[Checkpoints(tmp_path, every_batches=1), ema, sparsity],
    )
    state = load_state(tmp_path / "final.pdsparse")
    assert state.step == state.training["ema"]["step"] == sparsity.pruner.cur_iteration == 6


def test_under_gradient_accumulation_checkpoints_wait_for_the_optimizer_step(first_digits, tmp_path):
    class SavedNames(paddle.callbacks.Callback):
        names = set()

        def on_train_batch_end(self, step, logs=None):
            self.names |= {path.stem for path in tmp_path.glob("*.pdsparse")}

    classifier(Pointwise()).fit(
        first_digits,
        epochs=1,
        batch_size=16,
        verbose=0,
        accumulate_grad_batches=4,
        callbacks=[Checkpoints(tmp_path, every_batches=3), SavedNames()],
    )
    assert SavedNames.names == {"0_4", "0_8"}  # due after batches 3, 6 and 9


def test_early_stopping_names_its_epoch_and_keeps_its_patience_in_a_resumed_training(first_digits, tmp_path, capsys):
    class Constant(paddle.metric.Accuracy):
        def accumulate(self):
            return 0.5

    def stopping(patience):
        return SparseEarlyStopping("acc", mode="max", patience=patience, verbose=1, save_best_model=False)

    def fit(epochs, patience, resume=None):
        with paddle.utils.unique_name.guard():
            model = classifier(Pointwise())
            model._metrics = [Constant()]
            model.fit(
                first_digits,
                first_digits,
                epochs=epochs,
                batch_size=80,
                verbose=0,
                callbacks=[pruning(resume=resume), Checkpoints(tmp_path), stopping(patience)],
            )
        return model

    fit(9, patience=3)  # the target is reached in the second epoch, and no later evaluation is better
    assert "Epoch 5: Early stopping." in capsys.readouterr().out
    state = load_state(tmp_path / "4.pdsparse")
    assert state.training["early_stopping"] == {"acc": [0.5, 2]}
    fit(3, patience=3, resume=find_checkpoint(tmp_path))  # one more evaluation without a better value
    assert "Epoch 1: Early stopping." in capsys.readouterr().out
