"""ppdet's data sets, built from a configuration and checked before a training starts."""

from __future__ import annotations

import contextlib
import hashlib
import io
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from defusedxml import ElementTree

from ...errors import InputError
from ..config import convert_errors, create
from . import coco, folder, samples, voc

# The functions that depend on the format of the annotations, by the name of ppdet's class.
_FORMATS: dict[str, ModuleType] = {"COCODataSet": coco, "VOCDataSet": voc}


def build_dataset(registry: Any, split: str, labels: bool = True) -> Any:
    """Builds and parses a data set of a loaded configuration.

    Args:
        registry: ppdet's registry (`detection.config.load`).
        split: `Train` or `Eval`, as in `TrainDataset`.
        labels: whether annotations are needed; without them it may be an `ImageFolder`.

    Returns:
        ppdet's data set, whose records are in `roidbs`.

    Raises:
        InputError: annotations or images do not exist or cannot be used, no image has a box, or the number of classes
            is not `num_classes`, or a class is listed twice.
    """
    with convert_errors(f"{split}Dataset"):
        dataset = create(f"{split}Dataset")()
    kind = type(dataset).__name__
    if kind == folder.NAME and labels:
        raise InputError(
            f"{split}Dataset: {folder.NAME} has no annotations; only TrainDataset can be one, with Distillation: "
            "{labels: false}"
        )
    if kind not in (*_FORMATS, folder.NAME):
        raise InputError(f"{split}Dataset must be one of {', '.join(_FORMATS)}, got {kind}")
    for key in ("dataset_dir", "image_dir", *(("anno_path",) if kind in _FORMATS else ())):
        if not isinstance(getattr(dataset, key), str):
            raise InputError(f"{split}Dataset.{key} must be a string, got {getattr(dataset, key)!r}")
    if dataset.dataset_dir.startswith("sample:"):
        dataset.dataset_dir = str(samples.resolve(dataset.dataset_dir[len("sample:") :]))
    if kind == folder.NAME:
        folder.list_images(dataset, split)
        return dataset
    _check_paths(dataset, split)
    _parse(dataset, split)
    _check_records(dataset, split)
    source, classes = _format(dataset).classes(dataset)
    for number in range(len(classes)):  # ppdet numbers the entries of the file; of two equal ones the last remains
        if number not in classes.values():
            raise InputError(f"{split}Dataset: {source}: entry {number + 1} is listed again; classes must be unique")
    if len(classes) != registry["num_classes"]:
        raise InputError(f"num_classes is {registry['num_classes']}, but {source} has {len(classes)} categories")
    return dataset


def ground_truth(dataset: Any) -> str | dict[str, Any]:
    """Returns what detections on a data set are compared with: a COCO annotation file, or the content of one.

    Raises:
        InputError: the configuration leaves out the boxes of the data set.
    """
    try:
        truth: str | dict[str, Any] = _format(dataset).ground_truth(dataset)
    except KeyError as error:
        raise InputError(f"EvalDataset.data_fields: evaluation needs {error}, got {dataset.data_fields}") from None
    return truth


def image_ids(dataset: Any) -> list[int]:
    """Returns the ids of the images in a data set, as in its ground truth."""
    return [int(record["im_id"][0]) for record in dataset.roidbs]


def content_digest(dataset: Any) -> str:
    """Returns a SHA-256 digest of the annotations, and of the names and sizes of the image files."""
    digest = hashlib.sha256()
    for record in dataset.roidbs:
        if record.get("im_file"):
            image = Path(record["im_file"])
            digest.update(f"{image.name} {image.stat().st_size}".encode())
        for key in sorted(record):
            if isinstance(record[key], np.ndarray):
                digest.update(key.encode() + record[key].tobytes())
    return digest.hexdigest()


def _format(dataset: Any) -> Any:
    return _FORMATS[type(dataset).__name__]


def _check_paths(dataset: Any, split: str) -> None:
    annotations = Path(dataset.get_anno() or "")
    if not annotations.is_file():
        raise InputError(f"{split}Dataset: no annotations at {annotations} (dataset_dir + anno_path)")
    images = Path(dataset.dataset_dir, dataset.image_dir)
    if not images.is_dir():
        raise InputError(f"{split}Dataset: no image folder at {images} (dataset_dir + image_dir)")


def _parse(dataset: Any, split: str) -> None:
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints each of its steps
            dataset.parse_dataset()
    except (
        ArithmeticError,
        AssertionError,
        AttributeError,
        LookupError,
        MemoryError,
        OSError,
        RecursionError,
        TypeError,
        ValueError,
        ElementTree.ParseError,
    ) as error:
        files, reason = _format(dataset).invalid_files(dataset), " ".join(str(error).split())
        raise InputError(f"{split}Dataset: cannot use {files}: {type(error).__name__} {reason}") from None
    _format(dataset).finish(dataset)


def _check_records(dataset: Any, split: str) -> None:
    """Checks what ppdet would notice only during the training, or never."""
    annotations = f"{split}Dataset: {dataset.get_anno()}"
    if getattr(dataset, "load_image_only", False):
        raise InputError(f"{annotations} has no 'annotations'")
    if not dataset.roidbs:
        raise InputError(f"{split}Dataset: no image with a box in {dataset.get_anno()}")
    for record in dataset.roidbs:
        image = record.get("im_file")
        if image is None:
            continue
        if not Path(image).is_file():  # reading from a pipe or a device would not end
            raise InputError(f"{annotations} names the image {image}, which is not a file")
        if record["im_id"].dtype.kind not in "iu":
            raise InputError(
                f"{annotations}: the id of {image} must be an integer of at most 64 bits, got {record['im_id'][0]!r}"
            )
        if not np.isfinite(record.get("gt_bbox", 0)).all():
            raise InputError(f"{annotations}: the boxes of {image} must be finite, got {record['gt_bbox'].tolist()}")
