"""A `DataLoader` whose batches follow from seed, epoch and place alone, and that ends with an error where one is bad.

What a sample is augmented with does not depend on what was made before it or on the number of worker processes, so that
a training can go on from any batch.

An exception in Paddle 2.6's loader is lost: without worker processes the next batch is waited for for ever, with them
its message goes missing. So errors travel as batches here, and are raised where they arrive.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import paddle
from paddle.io import DataLoader, Dataset, DistributedBatchSampler

from ...errors import InputError

Batch = list[np.ndarray]
_SIGNALS = {signal.SIGINT, signal.SIGTERM}


class Loader(DataLoader):
    """Paddle's, of a `SeededDataset` data set in `EpochLoader`, with `Transforms` for samples and a `Collate` for batches."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, worker_init_fn=_leave_process_group, **keywords)

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Sets the epoch of the next pass and its first batch."""
        self.dataset.epoch = epoch
        self.batch_sampler.start_epoch(self.dataset.seed, epoch, first_batch)

    def __iter__(self) -> Iterator[list[paddle.Tensor]]:
        """Gives the batches of an epoch.

        Raises:
            InputError: a sample or a batch cannot be made; one line that names it.
        """
        if self.batch_sampler.first >= len(self):  # no worker processes for nothing
            return
        with _signals_blocked():
            batches = super().__iter__()
        for batch in batches:
            if len(batch) == 1:  # a real one has an image and what belongs to it
                raise InputError(batch[0].numpy().tobytes().decode())
            yield batch


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """Blocks Ctrl-C and SIGTERM, also for worker processes that start within the block."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _leave_process_group(worker: int) -> None:
    """Moves a worker process, which starts with blocked signals, to a process group of its own.

    A terminal or a scheduler sends a signal to the whole group. The main process then saves a checkpoint and ends its
    workers; if these ended by themselves, Paddle would raise an error in the middle of a batch.
    """
    if not hasattr(signal, "pthread_sigmask"):
        return
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # drops what has arrived since the start
    os.setpgrp()
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


class EpochLoader(DistributedBatchSampler):
    """Paddle's, whose order follows from a seed too, and that can start later in an epoch."""

    first = 0

    def start_epoch(self, seed: int, epoch: int, first: int) -> None:
        """Sets the order of the next pass, and the batch that it starts from."""
        self.set_epoch((seed * 1_000_003 + epoch) % 2**32)  # Paddle goes by the epoch alone
        self.first = first

    def __iter__(self) -> Iterator[list[int]]:
        """Gives the indices of each batch."""
        return itertools.islice(super().__iter__(), self.first, None)


class SeededDataset(Dataset):
    """A data set whose random numbers follow from seed, epoch and index.

    Args:
        dataset: ppdet's.
        seed: of all its random numbers.
    """

    def __init__(self, dataset: Any, seed: int) -> None:
        self.source, self.seed, self.epoch = dataset, seed, 0

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Any:
        """Makes a sample."""
        np.random.seed([self.seed, self.epoch, index])
        random.seed(np.random.bytes(16))
        self.source.set_epoch(self.epoch)  # mixup and its like end at one
        self.source._curr_iter = self.epoch * len(self)  # ppdet counts the samples of a process, which GridMask goes by
        return self.source[index]


class Transforms:
    """Transforms of one sample. What cannot be transformed becomes the error that says so.

    Args:
        transforms: ppdet's, a callable on a sample, or on the list of samples that a mosaic or a mixup is made of.
    """

    def __init__(self, transforms: Callable[[Any], dict[str, Any]]) -> None:
        self.transforms = transforms

    def __call__(self, sample: Any) -> dict[str, Any] | InputError:
        """Transforms a sample."""
        parts = sample if isinstance(sample, list) else [sample]
        files = [part.get("im_file", "a record without image") for part in parts]
        try:
            return self.transforms(sample)
        except Exception as error:  # OpenCV and ppdet raise all there is; none of it is passed over
            return _unusable(", ".join(files), error)


class Collate:
    """Makes batches of samples. What cannot be made becomes a batch of one array: the bytes of the error's message.

    Args:
        collate: makes the arrays of a batch, at least two.
    """

    def __init__(self, collate: Callable[[list[dict[str, Any]]], Batch]) -> None:
        self.collate = collate

    def __call__(self, samples: list[Any]) -> Batch:
        """Makes a batch."""
        wrong = [sample for sample in samples if isinstance(sample, InputError)]
        if wrong:
            return _as_batch(wrong[0])
        try:
            return self.collate(samples)
        except Exception as error:  # as above
            ids = ", ".join(str(sample.get("im_id")) for sample in samples)
            return _as_batch(_unusable(f"a batch of the images {ids}", error))


def _unusable(what: str, error: Exception) -> InputError:
    return InputError(f"{what}: cannot be used: {type(error).__name__}: {' '.join(str(error).split())}")


def _as_batch(error: InputError) -> Batch:
    return [np.frombuffer(str(error).encode(), dtype=np.uint8)]
