"""Samples to batches, with errors that arrive.

Paddle 2.6's DataLoader loses exceptions: without worker processes it waits forever for the next batch, with worker
processes the message is missing. Errors are therefore passed on as batches and raised by `SeededLoader`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from ..network import EVAL_FIELDS
from .images import check_image

_GROUND_TRUTH = ("gt_", "difficult", "is_crowd")
_DTYPES = {"gt_class": np.int64, "im_id": np.int64}  # Paddle 3 does not promote int32 + int64


class TransformSample:
    """Transforms a sample, or returns the InputError that says why its images cannot be used.

    Args:
        transforms: ppdet's transforms, which take a sample, or the list of samples of a mosaic or a mixup.
    """

    def __init__(self, transforms: Callable[[Any], dict[str, Any]]) -> None:
        self.transforms = transforms

    def __call__(self, sample: Any) -> dict[str, Any] | InputError:
        """Transforms a sample whose images pass `check_image`."""
        files = [part.get("im_file") for part in (sample if isinstance(sample, list) else [sample])]
        try:
            for file in files:
                if file:
                    check_image(Path(file).read_bytes())
            return self.transforms(sample)
        except Exception as error:  # OpenCV and ppdet raise errors of many types; each ends the training
            return _unusable(", ".join(file or "a record without image" for file in files), error)


class CollateBatch:
    """Collates samples to a batch, or to a batch of one array with the message of an error.

    Args:
        transforms: ppdet's `BatchCompose`.
        fields: names of the batch's tensors, in order; at least two.
    """

    def __init__(self, transforms: Callable[[list[dict[str, Any]]], dict[str, Any]], fields: tuple[str, ...]) -> None:
        self.transforms = transforms
        self.fields = fields

    def __call__(self, samples: list[Any]) -> list[np.ndarray]:
        """Collates a batch."""
        for sample in samples:
            if isinstance(sample, InputError):
                return _as_batch(sample)
        try:
            return self._collate(samples)
        except Exception as error:  # as above
            ids = ", ".join(str(sample.get("im_id")) for sample in samples)
            return _as_batch(_unusable(f"a batch of the images {ids}", error))

    def _collate(self, samples: list[dict[str, Any]]) -> list[np.ndarray]:
        if self.fields == EVAL_FIELDS:  # VOC's samples have their boxes in evaluation too, in varying numbers
            samples = [
                {name: value for name, value in sample.items() if not name.startswith(_GROUND_TRUTH)}
                for sample in samples
            ]
        collated = self.transforms(samples)
        return [np.asarray(collated[name], dtype=_DTYPES.get(name, np.float32)) for name in self.fields]


def error_message(batch: list[Any]) -> str:
    """Returns the message of a batch that stands for an error, and an empty string for any other batch."""
    return batch[0].numpy().tobytes().decode() if len(batch) == 1 else ""


def _unusable(what: str, error: Exception) -> InputError:
    return InputError(f"{what}: cannot be used: {type(error).__name__}: {' '.join(str(error).split())}")


def _as_batch(error: InputError) -> list[np.ndarray]:
    return [np.frombuffer(str(error).encode(), dtype=np.uint8)]
