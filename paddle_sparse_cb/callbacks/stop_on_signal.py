"""`StopOnSignal`: Ctrl-C and SIGTERM during a training save a checkpoint and end it."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..utils.distributed import is_rank_zero
from .checkpoint import Checkpoints
from .session import FitCallback

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """A signal ended the run.

    Attributes:
        number: the signal.
        saved: the checkpoint that was saved, if one was.
    """

    def __init__(self, number: int | str, saved: Path | None = None) -> None:
        if isinstance(number, str):  # Paddle creates an exception again from its text when it converts a network
            number = next((one for one in _SIGNALS if one.name in number), signal.SIGINT)
        super().__init__(signal.Signals(number).name + (f": saved {saved}" if saved else ""))
        self.number, self.saved = number, saved


class Signals:
    """The signals that a process received.

    Attributes:
        number: the last signal, if any.
        is_deferring: only note a signal, because a training checks for it. Otherwise, and at a second Ctrl-C, a signal
            raises `Interrupted`.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.is_deferring = False

    @contextlib.contextmanager
    def handled(self) -> Iterator[None]:
        """Handles SIGINT and SIGTERM within the block; outside the main thread, where Python cannot, does nothing."""
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
        is_second_ctrl_c = number == self.number == signal.SIGINT  # a launcher sends SIGTERM three times
        self.number = number
        if is_second_ctrl_c or not self.is_deferring:
            raise Interrupted(number)


class StopOnSignal(FitCallback):
    """Saves a checkpoint and ends the training at the next moment from which it can resume.

    Of several ranks only rank 0 does so: it cannot wait for the others, whose next step waits for it. They end with
    the launcher.

    Args:
        signals: the received signals.
        checkpoints: the callback that saves.
    """

    stage = 0

    def __init__(self, signals: Signals, checkpoints: Checkpoints) -> None:
        super().__init__()
        self.signals, self.checkpoints = signals, checkpoints

    def begin_training(self) -> None:
        """Defers signals from here on."""
        self.signals.is_deferring = True

    def end_training(self) -> None:
        """Checks for a signal once more; what follows the training can be interrupted at once."""
        self._check()

    def close(self) -> None:
        """Stops deferring signals."""
        self.signals.is_deferring = False

    def after_training(self) -> None:
        """Stops deferring signals."""
        self.close()

    def on_train_batch_begin(self, step: int, logs: Any = None) -> None:
        """Checks between two batches, where a step of the optimizer is complete."""
        super().on_train_batch_begin(step, logs)
        if step and step % getattr(self.model, "_accumulate", 1) == 0:
            self._check()

    def after_epoch(self) -> None:
        """Checks after an epoch."""
        self._check()

    def on_eval_batch_end(self, step: int, logs: Any = None) -> None:
        """Checks within the evaluation that follows an epoch; a resumed training repeats it."""
        self._check()

    def _check(self) -> None:
        if self.signals.number is not None and is_rank_zero():
            raise Interrupted(self.signals.number, self.checkpoints.save_position())
