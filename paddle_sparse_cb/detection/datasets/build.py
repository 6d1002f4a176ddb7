"""ppdet's datasets and transforms as a `paddle.io.DataLoader` whose batches are ordered lists, as hapi wants them."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
from defusedxml import ElementTree

from ...errors import InputError
from ..config import convert_errors, create
from ..network import EVAL_FIELDS, TRAIN_FIELDS
from . import samples, voc
from .jpeg import CheckImageFiles
from .loader import Collate, EpochLoader, Loader, SeededDataset, Transforms

_TRUTH = ("gt_", "difficult", "is_crowd")
_DTYPES = {"gt_class": np.int64, "im_id": np.int64}  # Paddle 3 does not promote int32 + int64


class OrderedCollate:
    """Turns a list of ppdet samples into the ordered arrays of a batch, with ppdet's batch transforms.

    Args:
        transforms: ppdet's `BatchCompose`.
        fields: names of the tensors, in order.
    """

    def __init__(self, transforms: Any, fields: tuple[str, ...]) -> None:
        self.transforms = transforms
        self.fields = fields

    def __call__(self, batch: list[dict[str, Any]]) -> list[np.ndarray]:
        """Collates a batch."""
        if self.fields == EVAL_FIELDS:  # VOC's samples still have their boxes, in different numbers; nobody asks here
            batch = [{name: value for name, value in sample.items() if not name.startswith(_TRUTH)} for sample in batch]
        collated = self.transforms(batch)
        return [np.asarray(collated[name], dtype=_DTYPES.get(name, np.float32)) for name in self.fields]


def build_loader(registry: Any, split: str) -> Loader:
    """Makes the loader of a loaded configuration.

    Under `paddle.distributed.launch` each rank gets its share of the images.

    Args:
        registry: ppdet's registry (`detection.config.load`).
        split: `Train` or `Eval`, as in `TrainDataset` and `TrainReader`.

    Returns:
        A loader of `TRAIN_FIELDS` or `EVAL_FIELDS`.

    Raises:
        InputError: the annotations or the images are not there, or no image has a box.
    """
    from ppdet.data.transform import PadGT

    with convert_errors(f"{split}Dataset"):
        dataset = create(f"{split}Dataset")()
        if type(dataset).__name__ not in ("COCODataSet", "VOCDataSet"):
            raise InputError(f"{split}Dataset is a COCODataSet or a VOCDataSet, got {type(dataset).__name__}")
    for key in ("dataset_dir", "image_dir", "anno_path"):
        if not isinstance(getattr(dataset, key), str):
            raise InputError(f"{split}Dataset.{key} is a string, got {getattr(dataset, key)!r}")
    dataset.dataset_dir = _folder(dataset.dataset_dir)
    _require(dataset, split)
    _parse(dataset, split)
    if _is_voc(dataset):
        voc.number_images(dataset.roidbs)
    classes = len(dataset.cname2cid if _is_voc(dataset) else dataset.catid2clsid)
    if classes != registry["num_classes"]:
        source = dataset.label_list and dataset.get_label_list() if _is_voc(dataset) else None
        raise InputError(f"num_classes is {registry['num_classes']}, but {source or dataset.get_anno()} has {classes} "
                         "categories")
    reader = create(f"{split}Reader")
    if split == "Train" and len(dataset) < reader.batch_size:
        raise InputError(f"TrainReader: batch_size is {reader.batch_size}, more than the {len(dataset)} images in "
                         f"{dataset.get_anno()}")
    dataset.set_transform(Transforms(CheckImageFiles(reader._sample_transforms)))
    dataset.set_kwargs(**reader.kwargs)
    batch_transforms = reader._batch_transforms
    batch_transforms.collate_batch = True
    if split == "Train" and not any(isinstance(op, PadGT) for op in batch_transforms.transforms_cls):
        batch_transforms.transforms_cls.append(PadGT())
    fields = TRAIN_FIELDS if split == "Train" else EVAL_FIELDS
    # ppdet's EvalReader drops the last incomplete batch by default, which would leave images unmeasured.
    seeded = SeededDataset(dataset, int(registry.get("seed", 0)))
    sampler = EpochLoader(seeded, reader.batch_size, shuffle=reader.shuffle and split == "Train",
                      drop_last=split == "Train" and reader.drop_last)
    return Loader(seeded, batch_sampler=sampler, collate_fn=Collate(OrderedCollate(batch_transforms, fields)),
                  num_workers=int(registry.get("worker_num", 0)), return_list=True)


def _parse(dataset: Any, split: str) -> None:
    """Reads the annotations, and finds what in them would be found out late or never."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools tells each of its steps
            dataset.parse_dataset()
    except (ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, OSError, RecursionError,
            TypeError, ValueError, ElementTree.ParseError) as error:
        files = voc.files_to_blame(dataset) if _is_voc(dataset) else dataset.get_anno()
        reason = " ".join(str(error).split())
        raise InputError(f"{split}Dataset: cannot use {files}: {type(error).__name__} {reason}") from None
    if getattr(dataset, "load_image_only", False):
        raise InputError(f"{split}Dataset: {dataset.get_anno()} has no 'annotations'")
    if not dataset.roidbs:
        raise InputError(f"{split}Dataset: no image with a box in {dataset.get_anno()}")
    for record in dataset.roidbs:
        image = record.get("im_file")
        if image is None:
            continue
        if not Path(image).is_file():  # a pipe or a device would be read for ever
            raise InputError(f"{split}Dataset: {dataset.get_anno()} names the image {image}, which is no file")
        if record["im_id"].dtype.kind not in "iu":
            raise InputError(f"{split}Dataset: {dataset.get_anno()}: the id of {image} is a whole number of at most 64 "
                             f"bits, got {record['im_id'][0]!r}")
        if not np.isfinite(record.get("gt_bbox", 0)).all():
            raise InputError(f"{split}Dataset: {dataset.get_anno()}: a box of {image} is no box: "
                             f"{record['gt_bbox'].tolist()}")


def ground_truth(dataset: Any) -> str | dict[str, Any]:
    """What an evaluation on a data set is measured against: the COCO annotation file, or its content.

    Raises:
        InputError: the data set was told to leave its boxes out.
    """
    if not _is_voc(dataset):
        return str(dataset.get_anno())
    try:
        return voc.coco_truth(dataset)
    except KeyError as error:
        raise InputError(f"EvalDataset.data_fields: an evaluation needs {error}, got {dataset.data_fields}") from None


def _is_voc(dataset: Any) -> bool:
    from ppdet.data.source.voc import VOCDataSet

    return isinstance(dataset, VOCDataSet)


def _folder(dataset_dir: str) -> str:
    """The folder of a data set; `sample:` names are fetched."""
    if dataset_dir.startswith("sample:"):
        return str(samples.resolve(dataset_dir[len("sample:"):]))
    return dataset_dir


def _require(dataset: Any, split: str) -> None:
    annotations = Path(dataset.get_anno() or "")
    if not annotations.is_file():
        raise InputError(f"{split}Dataset: no annotations at {annotations} (dataset_dir + anno_path)")
    images = Path(dataset.dataset_dir, dataset.image_dir)
    if not images.is_dir():
        raise InputError(f"{split}Dataset: no image folder at {images} (dataset_dir + image_dir)")
