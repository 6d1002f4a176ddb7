"""A training that goes on from where a checkpoint was: what the callbacks see, and which batches the loaders give.

`paddle.Model.fit` counts from epoch 0 and batch 0, always. Here what is done already passes without a batch and without
an event, and the random numbers of a batch follow from seed, epoch, batch and rank alone: none has to be stored.
"""

from __future__ import annotations

import itertools
import random
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import paddle

from ..errors import InputError


@dataclass(frozen=True, order=True)
class TrainingPosition:
    """Where a training is.

    Attributes:
        epoch: from 0.
        batch: so many batches of this epoch are done; when it is all of them, the evaluation that follows is not.
    """

    epoch: int = 0
    batch: int = 0


class EpochLoader(Protocol):
    """A loader whose next pass can be told what it is, such as `detection.loader.Loader`."""

    def __len__(self) -> int: ...

    def begin(self, epoch: int, first: int = 0) -> None:
        """Says the epoch of the next pass, and the batch that it starts from; none are left from `len` on."""


class SkipBatchesLoader:
    """Any loader, for `ResumableCallbacks`: the batches before the place are made, and left out.

    Python's and numpy's random numbers, which Paddle shuffles and most transforms draw with, are seeded anew for each
    pass.

    Args:
        loader: a `paddle.io.DataLoader` with a length.
        seed: of its random numbers.
    """

    def __init__(self, loader: paddle.io.DataLoader, seed: int = 0) -> None:
        self.loader, self.seed = loader, seed
        self._first = 0

    def __len__(self) -> int:
        return len(self.loader)

    def begin(self, epoch: int, first: int = 0) -> None:
        """Seeds a pass."""
        self._first = first
        if first < len(self):
            np.random.seed([self.seed, epoch])
            random.seed(f"{self.seed} {epoch}")
            if hasattr(self.loader.batch_sampler, "set_epoch"):
                self.loader.batch_sampler.set_epoch(epoch)

    def __iter__(self) -> Iterator[Any]:
        """Gives the batches of a pass from the place on."""
        if self._first < len(self):
            yield from itertools.islice(self.loader, self._first, None)


class ResumableCallbacks(paddle.callbacks.Callback):
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

    Raises:
        InputError: a loader has no `begin`.

    Example:
        >>> import paddle, tempfile
        >>> from paddle_sparse_cb import Checkpoints, ResumableCallbacks, SkipBatchesLoader, SparsityCallback, last_checkpoint, read_position
        >>> images, labels = paddle.rand([32, 8]), paddle.randint(0, 4, [32, 1])
        >>> loader = SkipBatchesLoader(paddle.io.DataLoader(paddle.io.TensorDataset([images, labels]), batch_size=8, shuffle=True))
        >>> def train(folder, epochs):
        ...     with paddle.utils.unique_name.guard():  # the same names in each of these trainings of one process
        ...         network = paddle.nn.Linear(8, 4)
        ...         model = paddle.Model(network)
        ...         model.prepare(paddle.optimizer.Momentum(0.1, parameters=network.parameters()),
        ...                       paddle.nn.CrossEntropyLoss())
        ...         checkpoint = last_checkpoint(folder)
        ...         sparsity = SparsityCallback(ratio=0.75, pruning_epochs=1, tunning_epochs=1, prune_params_type=None,
        ...                                     resume=checkpoint)
        ...         model.fit(loader, epochs=epochs, verbose=0, callbacks=[
        ...             ResumableCallbacks([sparsity, Checkpoints(folder)], loader, place=read_position(checkpoint))])
        ...     return sparsity.pruner.cur_iteration
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     train(folder, 2), train(folder, 4)  # the second one trains the last two epochs
        (8, 16)
    """

    def __init__(self, callbacks: Sequence[paddle.callbacks.Callback], train: EpochLoader,
                 evaluation: EpochLoader | None = None, every: int = 1, place: TrainingPosition | None = None, seed: int = 0) -> None:
        super().__init__()
        for name, loader in (("train", train), ("evaluation", evaluation)):
            if loader is not None and not hasattr(loader, "begin"):
                raise InputError(f"{name} is a loader with a method begin(), such as SkipBatchesLoader(loader), got {loader!r}")
        self.callbacks, self.train, self.evaluation = list(callbacks), train, evaluation
        self.every, self.place, self.seed = every, place or TrainingPosition(), seed
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
