"""Data loaders whose batches depend only on the seed, the epoch and the position in it.

Random augmentation of a sample depends neither on the samples before it nor on the number of worker processes, so a
training can be resumed at any batch.
"""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import paddle
from paddle.io import DataLoader, Dataset, DistributedBatchSampler

from ...errors import InputError
from ..config import create
from ..network import EVAL_FIELDS, TRAIN_FIELDS
from .batches import CollateBatch, TransformSample, error_message
from .dataset import build_dataset, content_digest
from .workers import block_signals, leave_process_group


def build_loader(registry: Any, split: str, labels: bool = True) -> SeededLoader:
    """Builds the loader of a loaded configuration.

    Under `paddle.distributed.launch` each rank gets its share of the images.

    Args:
        registry: ppdet's registry (`detection.config.load`).
        split: `Train` or `Eval`, as in `TrainDataset` and `TrainReader`.
        labels: False leaves the boxes out of training batches, which then have the tensors of an evaluation.

    Returns:
        A loader of batches with the tensors `network.TRAIN_FIELDS` or `network.EVAL_FIELDS`.

    Raises:
        InputError: the data set (`build_dataset`) or the reader cannot be used, or a batch has more images than the
            training set.
    """
    from ppdet.data.transform import PadGT

    training = split == "Train"
    dataset, reader = build_dataset(registry, split, labels), create(f"{split}Reader")
    if training and len(dataset) < reader.batch_size:
        raise InputError(
            f"TrainReader: batch_size is {reader.batch_size}, more than the {len(dataset)} images in "
            f"{dataset.get_anno() or dataset.image_dir}"
        )
    dataset.set_transform(TransformSample(reader._sample_transforms))
    dataset.set_kwargs(**reader.kwargs)
    transforms = reader._batch_transforms
    transforms.collate_batch = True
    others = [op for op in transforms.transforms_cls if not isinstance(op, PadGT)]
    if not labels:
        transforms.transforms_cls = others
    elif training and len(others) == len(transforms.transforms_cls):
        transforms.transforms_cls.append(PadGT())
    seeded = SeededDataset(dataset, int(registry.get("seed", 0)))
    # ppdet's EvalReader drops an incomplete last batch by default, which would leave images unmeasured.
    sampler = SeededBatchSampler(
        seeded, reader.batch_size, shuffle=reader.shuffle and training, drop_last=reader.drop_last and training
    )
    collate = CollateBatch(transforms, TRAIN_FIELDS if training and labels else EVAL_FIELDS)
    return SeededLoader(
        seeded,
        batch_sampler=sampler,
        collate_fn=collate,
        num_workers=int(registry.get("worker_num", 0)),
        return_list=True,
    )


class SeededLoader(DataLoader):
    """A DataLoader over a `SeededDataset` in the order of a `SeededBatchSampler`, collated by `CollateBatch`."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, worker_init_fn=leave_process_group, **keywords)

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Sets the epoch of the next pass and its first batch."""
        self.dataset.epoch = epoch
        self.batch_sampler.start_epoch(self.dataset.seed, epoch, first_batch)

    def __iter__(self) -> Iterator[list[paddle.Tensor]]:
        """Yields the batches of an epoch.

        Raises:
            InputError: a sample or a batch cannot be used; one line that names it.
        """
        if self.batch_sampler.first_batch >= len(self):  # starts no worker processes
            return
        with block_signals():
            batches = super().__iter__()
        for batch in batches:
            message = error_message(batch)
            if message:
                raise InputError(message)
            yield batch


class SeededBatchSampler(DistributedBatchSampler):
    """A DistributedBatchSampler whose order depends on a seed too, and that can start within an epoch."""

    first_batch = 0

    def start_epoch(self, seed: int, epoch: int, first_batch: int) -> None:
        """Sets the order of the next pass and its first batch."""
        self.set_epoch((seed * 1_000_003 + epoch) % 2**32)  # Paddle seeds the order with the epoch alone
        self.first_batch = first_batch

    def __iter__(self) -> Iterator[list[int]]:
        """Yields the indices of each batch."""
        return itertools.islice(super().__iter__(), self.first_batch, None)


class SeededDataset(Dataset):
    """A data set whose random numbers depend on seed, epoch and index only.

    Args:
        dataset: ppdet's data set.
        seed: seed of all random numbers.
    """

    def __init__(self, dataset: Any, seed: int) -> None:
        self.source, self.seed, self.epoch = dataset, seed, 0

    def __len__(self) -> int:
        return len(self.source)

    @functools.cached_property
    def digest(self) -> str:
        """What `content_digest` returns: a training resumes only with the same data."""
        return content_digest(self.source)

    def __getitem__(self, index: int) -> Any:
        """Returns a transformed sample."""
        np.random.seed([self.seed, self.epoch, index])
        random.seed(np.random.bytes(16))
        self.source.set_epoch(self.epoch)  # mixup and similar transforms end at an epoch
        # ppdet counts the samples of a process here, on which the strength of GridMask depends.
        self.source._curr_iter = self.epoch * len(self)
        return self.source[index]
