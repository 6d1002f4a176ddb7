import os
import signal
import threading

import paddle
import pytest
from helpers import Pointwise, classifier

from paddle_sparse_cb import Checkpoints, TrainingPosition, find_checkpoint
from paddle_sparse_cb.callbacks.stop_on_signal import Interrupted, Signals, StopOnSignal
from paddle_sparse_cb.deploy.export import export
from paddle_sparse_cb.utils.distributed import rank_zero_info


def fit(digits, folder, signals, event, calls_before, number):
    """Trains, and sends a signal to this process at an event after the given number of earlier calls of it."""
    checkpoints = Checkpoints(folder)

    class SendSignal(paddle.callbacks.Callback):
        def __getattribute__(self, name):
            nonlocal calls_before
            if name == event:
                if calls_before == 0:
                    os.kill(os.getpid(), number)
                calls_before -= 1
            return super().__getattribute__(name)

    classifier(Pointwise()).fit(
        digits,
        digits,
        epochs=2,
        batch_size=40,
        verbose=0,
        callbacks=[SendSignal(), checkpoints, StopOnSignal(signals, checkpoints)],
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("event", "calls_before", "position"),
    [
        ("on_train_batch_end", 1, TrainingPosition(0, 2)),
        ("on_epoch_end", 0, TrainingPosition(0, 4)),
        ("on_eval_batch_begin", 2, TrainingPosition(0, 4)),
        ("on_epoch_begin", 1, TrainingPosition(1, 1)),
        ("on_train_end", 0, TrainingPosition(1, 4)),
    ],
)
def test_a_signal_saves_a_checkpoint_of_the_current_position(
    first_digits, tmp_path, number, event, calls_before, position
):
    signals, before = Signals(), signal.getsignal(number)
    with signals.handled(), pytest.raises(Interrupted) as stopped:
        fit(first_digits, tmp_path, signals, event, calls_before, number)
    assert stopped.value.number == number
    assert signal.getsignal(number) == before
    newest = find_checkpoint(tmp_path)
    assert str(stopped.value) == f"{signal.Signals(number).name}: saved {newest.path}"
    assert newest.position == position


def test_a_second_ctrl_c_stops_at_once():
    signals = Signals()
    with signals.handled():
        signals.is_deferring = True
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(Interrupted, match=r"^SIGINT$"):
            os.kill(os.getpid(), signal.SIGINT)


def test_sigterm_of_a_launcher_after_ctrl_c_does_not_count_as_a_second_ctrl_c():
    signals = Signals()
    with signals.handled():
        signals.is_deferring = True
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
    assert signals.number == signal.SIGTERM


def test_a_signal_outside_of_a_training_stops_at_once():
    with Signals().handled(), pytest.raises(Interrupted, match=r"^SIGTERM$"):
        os.kill(os.getpid(), signal.SIGTERM)


class SendsSignal(paddle.nn.Layer):
    """Receives a signal while it is converted."""

    def __init__(self, number):
        super().__init__()
        self.number = number

    def forward(self, x):
        os.kill(os.getpid(), self.number)
        return x + 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_an_export_keeps_its_number(tmp_path, number):
    """Paddle creates the exceptions that end a conversion again, from their text."""
    with Signals().handled(), pytest.raises(Interrupted) as stopped:
        export(SendsSignal(number), tmp_path / "model", [paddle.static.InputSpec([1, 4], "float32")])
    assert stopped.value.number == number
    assert str(stopped.value) == signal.Signals(number).name


def test_in_a_thread_signal_handlers_stay_unchanged():
    def run():
        with Signals().handled():
            rank_zero_info("no handler is installed")

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) == before
