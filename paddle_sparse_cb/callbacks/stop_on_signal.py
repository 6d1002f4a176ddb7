"""Ctrl-C and SIGTERM while a training runs: a whole checkpoint, and then the end."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paddle

from ..checkpoints.store import Checkpoints
from ..utils.distributed import is_rank_zero

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """A signal has ended what was going on.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int, saved: Path | None = None) -> None:
        super().__init__(signal.Signals(number).name + (f": saved {saved}" if saved else ""))
        self.number = number


class Signals:
    """The signals of a process.

    Attributes:
        number: the first one that has come, if any.
        deferring: whether a signal is noted alone, because a training is going to look for it. Otherwise, and at a
            second Ctrl-C, it is an `Interrupted`.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.deferring = False

    @contextlib.contextmanager
    def handled(self) -> Iterator[None]:
        """Handles SIGINT and SIGTERM in the main thread, where alone that can be."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: Any) -> None:
        again = number == self.number == signal.SIGINT  # a launcher sends SIGTERM three times to make sure
        self.number = number
        if again or not self.deferring:
            raise Interrupted(number)


class StopOnSignal(paddle.callbacks.Callback):
    """Saves a checkpoint and ends the training at the first moment after a signal at which it can go on from.

    Of several ranks only the first one does: it cannot wait for the others, whose next step waits for it. They end with
    the launcher.

    Args:
        signals: what has come.
        checkpoints: what saves; it comes before this callback in `fit`.
    """

    def __init__(self, signals: Signals, checkpoints: Checkpoints) -> None:
        super().__init__()
        self.signals, self.checkpoints = signals, checkpoints

    def on_train_begin(self, logs: Any = None) -> None:
        """From here on this callback looks for signals."""
        self.signals.deferring = True

    def on_train_end(self, logs: Any = None) -> None:
        """What follows can be ended at once."""
        self._stop()
        self.signals.deferring = False

    def on_train_batch_begin(self, step: int, logs: Any = None) -> None:
        """Between two batches."""
        if step:
            self._stop()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """After an epoch."""
        self._stop()

    def on_eval_batch_end(self, step: int, logs: Any = None) -> None:
        """In the evaluation that follows an epoch, which will be made anew."""
        self._stop()

    def _stop(self) -> None:
        number = self.signals.number
        if number is None or not is_rank_zero():
            return
        raise Interrupted(number, self.checkpoints.save_place())
