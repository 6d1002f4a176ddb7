import os
import signal
import threading

import pytest
from helpers import Pointwise, classifier

from paddle_sparse_cb import Checkpoints, TrainingPosition, find_checkpoint
from paddle_sparse_cb.callbacks.stop_on_signal import Interrupted, Signals, StopOnSignal
from paddle_sparse_cb.utils.distributed import rank_zero_info


def fit(digits, folder, signals, when, number):
    """Sends a signal to this process at an event."""
    import paddle

    checkpoints = Checkpoints(folder)

    class Send(paddle.callbacks.Callback):
        def __getattribute__(self, name):
            if name == when[0] and when[1] == 0:
                os.kill(os.getpid(), number)
            if name == when[0]:
                when[1] -= 1
            return super().__getattribute__(name)

    classifier(Pointwise()).fit(digits, digits, epochs=2, batch_size=40, verbose=0,
                                callbacks=[Send(), checkpoints, StopOnSignal(signals, checkpoints)])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("when", "place"), [
    (("on_train_batch_end", 1), TrainingPosition(0, 2)), (("on_epoch_end", 0), TrainingPosition(0, 4)),
    (("on_eval_batch_begin", 2), TrainingPosition(0, 4)), (("on_epoch_begin", 1), TrainingPosition(1, 1)), (("on_train_end", 0), TrainingPosition(1, 4)),
])
def test_a_signal_saves_where_the_training_is(first_digits, tmp_path, number, when, place):
    signals = Signals()
    with signals.handled(), pytest.raises(Interrupted) as stopped:
        fit(first_digits, tmp_path, signals, list(when), number)
    assert stopped.value.number == number
    assert signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL)
    newest = find_checkpoint(tmp_path)
    assert str(stopped.value) == f"{signal.Signals(number).name}: saved {newest.path}"
    assert newest.position == place


def test_a_second_ctrl_c_does_not_wait():
    signals = Signals()
    with signals.handled():
        signals.is_deferring = True
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(Interrupted, match=r"^SIGINT$"):
            os.kill(os.getpid(), signal.SIGINT)


def test_what_a_launcher_sends_at_a_ctrl_c_waits():
    signals = Signals()
    with signals.handled():
        signals.is_deferring = True
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
    assert signals.number == signal.SIGTERM


def test_what_is_no_training_ends_at_once():
    with Signals().handled(), pytest.raises(Interrupted, match=r"^SIGTERM$"):
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_thread_handles_nothing():
    def run():
        with Signals().handled():
            rank_zero_info("nothing is handled here")

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) == before
