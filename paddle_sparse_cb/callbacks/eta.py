"""How long a training is going to take, said once its pace is known."""

from __future__ import annotations

import time
from typing import Any

import paddle

from ..utils.distributed import is_rank_zero


class EtaPrinter(paddle.callbacks.Callback):
    """Prints an estimate after the first few steps.

    Args:
        name: what is trained, for the message.
        after: the step after which the pace is taken; the first steps are slower.
    """

    def __init__(self, name: str, after: int = 3) -> None:
        super().__init__()
        self.name = name
        self.after = after
        self._started = 0.0
        self._done, self._told = 0, False
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Notes the epoch."""
        self._epoch = epoch

    def on_train_batch_end(self, step: int, logs: Any = None) -> None:
        """Starts the clock after the first step, and tells the estimate once."""
        if self._told or not is_rank_zero():
            return
        if not self._done:
            self._started = time.monotonic()
        self._done += 1
        if self._done <= self.after:
            return
        self._told = True
        pace = (time.monotonic() - self._started) / self.after
        left = pace * (self.params["steps"] * (self.params["epochs"] - self._epoch) - step)
        print(f"training {self.name}: {self.params['epochs']} epochs of {self.params['steps']} steps, "
              f"about {max(1, round(left / 60))} min", flush=True)
