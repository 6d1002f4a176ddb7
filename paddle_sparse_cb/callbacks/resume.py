"""`ResumableCallbacks` and `SkipBatchesLoader`: resume `paddle.Model.fit` at any batch.

hapi's `fit` always counts from epoch 0 and batch 0. Here completed epochs and batches are skipped without an event, and
the random numbers of a batch are derived from seed, epoch, batch and rank, so that none have to be saved.
"""

from __future__ import annotations

import itertools
import os
import random
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import paddle

from ..checkpoints.position import ResumeState, TrainingPosition
from ..errors import InputError
from .session import FitCallback


class EpochLoader(Protocol):
    """A loader whose next pass can start at any batch of any epoch, such as `SkipBatchesLoader`."""

    def __len__(self) -> int:
        """Returns the batches of an epoch."""

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Sets the epoch of the next pass and its first batch; from `len` on, the pass is empty."""


class SkipBatchesLoader:
    """Makes any `paddle.io.DataLoader` resumable: completed batches are loaded and skipped.

    Python's and NumPy's random numbers, which Paddle shuffles with and most transforms use, are seeded before each
    pass. The data may draw Paddle's random numbers (`paddle.rand`) in worker processes only: without workers, a thread
    loads them while the training draws and seeds the same numbers.

    Args:
        loader: a `paddle.io.DataLoader` that has a length.
        seed: the seed of its random numbers.

    Raises:
        InputError: when created, if the workers are persistent; at the first pass, if the first sample draws Paddle's
            random numbers without a worker process.
    """

    def __init__(self, loader: paddle.io.DataLoader, seed: int = 0) -> None:
        if getattr(loader, "_persistent_workers", False):
            raise InputError(
                "SkipBatchesLoader: persistent_workers must be False, got True: the workers would keep their random "
                "numbers from one epoch to the next, and a resumed training has others"
            )
        self.loader, self.seed = loader, seed
        self._first = 0
        self._is_checked = False

    def __len__(self) -> int:
        return len(self.loader)

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Sets the epoch of the next pass and its first batch, and seeds the pass."""
        self._first = first_batch
        if first_batch < len(self):
            np.random.seed([self.seed, epoch])
            random.seed(f"{self.seed} {epoch}")
            if hasattr(self.loader.batch_sampler, "set_epoch"):
                self.loader.batch_sampler.set_epoch(epoch)

    def __iter__(self) -> Iterator[Any]:
        """Yields the batches of a pass from the first one on."""
        if self._first < len(self):
            self._check_random_numbers()
            yield from itertools.islice(self.loader, self._first, None)

    def _check_random_numbers(self) -> None:
        """Loads the first sample of the data set once and puts all random numbers back."""
        dataset = getattr(self.loader, "dataset", None)
        if self._is_checked or dataset is None or getattr(self.loader, "num_workers", 0) > 0:
            return
        self._is_checked = True
        states = np.random.get_state(), random.getstate(), paddle.get_rng_state()
        paddle.seed(self.seed)
        expected = float(paddle.rand([1]))
        paddle.seed(self.seed)
        dataset[0]
        draws = float(paddle.rand([1])) != expected  # a state itself cannot be compared
        np.random.set_state(states[0])
        random.setstate(states[1])
        paddle.set_rng_state(states[2])
        if draws:
            raise InputError(
                f"SkipBatchesLoader: {type(dataset).__name__} draws Paddle's random numbers (paddle.rand, paddle.seed) "
                "without a worker process, at the same time as the training: draw NumPy's, or give num_workers=1"
            )


class ResumableCallbacks(FitCallback):
    """Passes the events of the remaining epochs and batches on to other callbacks, and loads the checkpoint.

    Give `fit` the total number of epochs, this callback, and none of the callbacks it contains. Evaluations follow the
    epochs whose checkpoints are saved, while hapi's own `eval_freq`, which must be left at 1, begins with the first
    epoch.

    Args:
        callbacks: the callbacks, in any order.
        train: the loader that `fit` trains on.
        evaluation: the loader that `fit` evaluates on.
        every: epochs between two evaluations; the last epoch is evaluated too.
        resume: the checkpoint to resume from (`find_checkpoint`), or its `.pdsparse` file; None begins a new training.
            The other callbacks need no `resume` of their own.
        allow_config_change: see `SparsityCallback`.
        seed: the seed of the random numbers that Paddle draws in a batch.

    Raises:
        InputError: a loader has no `set_epoch`; at train begin, if the checkpoint cannot be loaded, or if it used EMA
            or Distillation and this run does not.

    Examples:
        >>> import paddle, tempfile
        >>> from paddle_sparse_cb import Checkpoints, ResumableCallbacks, SkipBatchesLoader, SparsityCallback
        >>> from paddle_sparse_cb import find_checkpoint
        >>> images, labels = paddle.rand([32, 8]), paddle.randint(0, 4, [32, 1])
        >>> data = paddle.io.TensorDataset([images, labels])
        >>> loader = SkipBatchesLoader(paddle.io.DataLoader(data, batch_size=8, shuffle=True))
        >>> def train(folder, epochs):
        ...     with paddle.utils.unique_name.guard():  # as in a process of its own
        ...         network = paddle.nn.Linear(8, 4)
        ...         model = paddle.Model(network)
        ...         model.prepare(paddle.optimizer.Momentum(0.1, parameters=network.parameters()),
        ...                       paddle.nn.CrossEntropyLoss())
        ...         sparsity = SparsityCallback(ratio=0.75, pruning_epochs=1, tunning_epochs=1, prune_params_type=None)
        ...         model.fit(loader, epochs=epochs, verbose=0, callbacks=[
        ...             ResumableCallbacks([sparsity, Checkpoints(folder)], loader, resume=find_checkpoint(folder))])
        ...     return sparsity.pruner.cur_iteration
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     train(folder, 2), train(folder, 4)  # the second call trains the last two epochs
        (8, 16)
    """

    stage = 0

    def __init__(
        self,
        callbacks: Sequence[paddle.callbacks.Callback],
        train: EpochLoader,
        evaluation: EpochLoader | None = None,
        every: int = 1,
        resume: str | os.PathLike[str] | ResumeState | None = None,
        allow_config_change: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, loader in (("train", train), ("evaluation", evaluation)):
            if loader is not None and not hasattr(loader, "set_epoch"):
                raise InputError(
                    f"{name} must be a loader with a method set_epoch(epoch, first_batch), such as "
                    f"SkipBatchesLoader(loader), got {loader!r}"
                )
        self.callbacks, self.train, self.evaluation = list(callbacks), train, evaluation
        self.every, self.resume, self.allow_config_change, self.seed = every, resume, allow_config_change, seed
        self._begin = TrainingPosition()
        self._epoch, self._first, self._evaluates = 0, 0, False
        self._is_complete = False
        self._accumulate = 1

    def begin_training(self) -> None:
        """Loads the checkpoint before any other callback begins."""
        resume = self.resume
        if resume is not None:
            if not isinstance(resume, ResumeState):
                resume = ResumeState.open(resume)
            batches = self.params.get("steps") or len(self.train)  # fewer than the loader's with a small num_iters
            self.session.load_checkpoint(resume, batches, self.allow_config_change)
        self._begin = self.session.position
        self._is_complete = not self.session.continue_iterations()
        self._accumulate = getattr(self.model, "_accumulate", 1)

    def _tell(self, event: str, *values: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, event)(*values)

    def set_params(self, params: dict[str, Any]) -> None:
        """Passes hapi's parameters on."""
        super().set_params(params)
        self._tell("set_params", params)

    def set_model(self, model: paddle.Model) -> None:
        """Passes hapi's model on."""
        super().set_model(model)
        self._tell("set_model", model)

    def on_train_begin(self, logs: Any = None) -> None:
        """Begins the training."""
        super().on_train_begin(logs)
        self._tell("on_train_begin", logs)
        if self.session.saved("ema") is not None and self.session.average is None:
            assert self.session.resume is not None
            raise InputError(f"{self.session.resume.path}: the checkpoint used an EMACallback, and this run has none")
        is_missing = self.session.saved("distillation") is not None and self.session.distillation is None
        if is_missing and not self.allow_config_change:
            assert self.session.resume is not None
            raise InputError(f"{self.session.resume.path}: the checkpoint used a Distillation, and this run has none")

    def on_train_end(self, logs: Any = None) -> None:
        """Passes the event on."""
        super().on_train_end(logs)
        self._tell("on_train_end", logs)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Tells the loaders what remains of an epoch, and passes the event on if anything remains."""
        begin = self._begin
        self._epoch = epoch
        if epoch < begin.epoch or self._is_complete:
            self._first = len(self.train)
        else:
            self._first = begin.batch if epoch == begin.epoch else 0
        self.train.set_epoch(epoch, self._first)
        is_due = (epoch + 1) % self.every == 0 or epoch + 1 == self.params["epochs"]
        self._evaluates = is_due and epoch >= begin.epoch
        if self.evaluation is not None:
            self.evaluation.set_epoch(epoch, 0 if self._evaluates else len(self.evaluation))
        if self._trains():
            self._tell("on_epoch_begin", epoch, logs)

    def _trains(self) -> bool:
        return self._first < len(self.train)

    def after_epoch(self) -> None:
        """Undoes what callbacks outside of this one, such as hapi's `LRScheduler`, did in an epoch that was skipped."""
        if not self._trains():
            if self.session.resume is not None:
                self.session.restore_rate()
            if self._is_complete and self._epoch >= self._begin.epoch:
                self.model.stop_training = True  # as hapi did when `num_iters` was reached

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Passes the event on if anything remained of the epoch."""
        if self._trains():
            self._tell("on_epoch_end", epoch, logs)

    def on_train_batch_begin(self, step: int, logs: Any = None) -> None:
        """Seeds Paddle, and passes the event on."""
        step += self._first
        rank = paddle.distributed.get_rank()
        paddle.seed(zlib.crc32(f"{self.seed} {self._epoch} {step} {rank}".encode()))
        self._tell("on_train_batch_begin", step, logs)
        if step + 1 == len(self.train):  # hapi, which counts from where the pass begins, would not step the optimizer
            self.model._accumulate = 1

    def on_train_batch_end(self, step: int, logs: Any = None) -> None:
        """Passes the event on."""
        self.model._accumulate = self._accumulate
        self._tell("on_train_batch_end", step + self._first, logs)

    def on_eval_begin(self, logs: Any = None) -> None:
        """Passes the event on if the evaluation is due."""
        if self._evaluates:
            self._tell("on_eval_begin", logs)

    def on_eval_batch_begin(self, step: int, logs: Any = None) -> None:
        """Passes the event on; an evaluation that is not due has no batches."""
        self._tell("on_eval_batch_begin", step, logs)

    def on_eval_batch_end(self, step: int, logs: Any = None) -> None:
        """Passes the event on."""
        self._tell("on_eval_batch_end", step, logs)

    def on_eval_end(self, logs: Any = None) -> None:
        """Passes the event on if the evaluation was due."""
        if self._evaluates:
            self._tell("on_eval_end", logs)
