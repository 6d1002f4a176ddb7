"""Photographs without annotations: all images in a folder, for a training that needs no labels."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError

NAME = "ImageFolder"
_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")


def list_images(dataset: Any, split: str) -> None:
    """Fills the records of ppdet's `ImageFolder` with the images in `dataset_dir` + `image_dir` and its folders.

    Links to folders are not followed, since they may lead back. The images are numbered in the order of their paths,
    and have no boxes.

    Args:
        dataset: ppdet's data set; of more images than its `sample_num` the first ones are taken.
        split: `Train`, for messages.

    Raises:
        InputError: there is no such folder, or no image in it.
    """
    folder = Path(dataset.dataset_dir, dataset.image_dir)
    if not folder.is_dir():
        raise InputError(f"{split}Dataset: no image folder at {folder} (dataset_dir + image_dir)")
    files = sorted(_images(folder))
    if not files:
        raise InputError(f"{split}Dataset: no image in {folder}; images end in {', '.join(_SUFFIXES)}")
    if dataset.sample_num > 0:
        files = files[: dataset.sample_num]
    dataset.roidbs = [_record(number, file) for number, file in enumerate(files)]


def _images(folder: Path) -> Iterator[str]:
    for root, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(root, name)
            if name.lower().endswith(_SUFFIXES) and os.path.isfile(path):
                yield path


def _record(number: int, file: str) -> dict[str, Any]:
    """Returns a record with no boxes, which transforms expect to be able to move."""
    return {
        "im_id": np.array([number]),
        "im_file": file,
        "gt_bbox": np.zeros((0, 4), np.float32),
        "gt_class": np.zeros((0, 1), np.int32),
        "is_crowd": np.zeros((0, 1), np.int32),
    }
