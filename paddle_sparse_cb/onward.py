"""A training that goes on from where a checkpoint was: what the callbacks see, and which batches the loaders give.

`paddle.Model.fit` counts from epoch 0 and batch 0, always. Here what is done already passes without a batch and without
an event, and the random numbers of a batch follow from seed, epoch, batch and rank alone: none has to be stored.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import paddle


@dataclass(frozen=True, order=True)
class Place:
    """Where a training is.

    Attributes:
        epoch: from 0.
        batch: so many batches of this epoch are done; when it is all of them, the evaluation that follows is not.
    """

    epoch: int = 0
    batch: int = 0


class Batches(Protocol):
    """A loader whose next pass can be told what it is, such as `detection.loader.Loader`."""

    def __len__(self) -> int: ...

    def begin(self, epoch: int, first: int = 0) -> None:
        """Says the epoch of the next pass, and the batch that it starts from; none are left from `len` on."""


class Onward(paddle.callbacks.Callback):
    """Hands hapi's events on to other callbacks, from a place on.

    Give `fit` the whole number of epochs, this callback and none of those that it holds. With hapi's `verbose` 0, a
    `ProgBarLogger` in here shows the epochs as they are. Evaluations follow the epochs whose checkpoints are saved,
    while hapi's own `eval_freq`, to be left at 1, begins with the first epoch.

    Args:
        callbacks: in their order.
        train: what `fit` trains on.
        evaluation: what `fit` evaluates on.
        every: epochs between two evaluations; the last epoch has one too.
        place: where to go on.
        seed: of the random numbers that Paddle draws in a batch.
    """

    def __init__(self, callbacks: Sequence[paddle.callbacks.Callback], train: Batches,
                 evaluation: Batches | None = None, every: int = 1, place: Place | None = None, seed: int = 0) -> None:
        super().__init__()
        self.callbacks, self.train, self.evaluation = list(callbacks), train, evaluation
        self.every, self.place, self.seed = every, place or Place(), seed
        self._epoch, self._first, self._evaluates = 0, 0, False

    def _tell(self, event: str, *values: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, event)(*values)

    def set_params(self, params: dict[str, Any]) -> None:
        """As hapi gives them."""
        super().set_params(params)
        self._tell("set_params", params)

    def set_model(self, model: paddle.Model) -> None:
        """As hapi gives it."""
        super().set_model(model)
        self._tell("set_model", model)

    def on_train_begin(self, logs: Any = None) -> None:
        """Handed on."""
        self._tell("on_train_begin", logs)

    def on_train_end(self, logs: Any = None) -> None:
        """Handed on."""
        self._tell("on_train_end", logs)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Tells the loaders what is left of an epoch; handed on if there is anything."""
        place = self.place
        self._epoch = epoch
        self._first = len(self.train) if epoch < place.epoch else place.batch if epoch == place.epoch else 0
        self.train.begin(epoch, self._first)
        due = (epoch + 1) % self.every == 0 or epoch + 1 == self.params["epochs"]
        self._evaluates = due and epoch >= place.epoch
        if self.evaluation is not None:
            self.evaluation.begin(epoch, 0 if self._evaluates else len(self.evaluation))
        if self._trains():
            self._tell("on_epoch_begin", epoch, logs)

    def _trains(self) -> bool:
        return self._first < len(self.train)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Handed on if there was anything left of the epoch."""
        if self._trains():
            self._tell("on_epoch_end", epoch, logs)

    def on_train_batch_begin(self, step: int, logs: Any = None) -> None:
        """Seeds Paddle, and hands on."""
        step += self._first
        rank = paddle.distributed.get_rank()
        paddle.seed(zlib.crc32(f"{self.seed} {self._epoch} {step} {rank}".encode()))
        self._tell("on_train_batch_begin", step, logs)

    def on_train_batch_end(self, step: int, logs: Any = None) -> None:
        """Handed on."""
        self._tell("on_train_batch_end", step + self._first, logs)

    def on_eval_begin(self, logs: Any = None) -> None:
        """Handed on, if the evaluation is one to be made."""
        if self._evaluates:
            self._tell("on_eval_begin", logs)

    def on_eval_batch_begin(self, step: int, logs: Any = None) -> None:
        """Handed on; an evaluation that is not to be made has no batches."""
        self._tell("on_eval_batch_begin", step, logs)

    def on_eval_batch_end(self, step: int, logs: Any = None) -> None:
        """Handed on, as above."""
        self._tell("on_eval_batch_end", step, logs)

    def on_eval_end(self, logs: Any = None) -> None:
        """Handed on, if the evaluation was made."""
        if self._evaluates:
            self._tell("on_eval_end", logs)
