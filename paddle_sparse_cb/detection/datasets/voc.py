"""Annotations in Pascal VOC's format, as the COCO ground truth that pycocotools measures against."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import Any


def number_images(records: list[dict[str, Any]]) -> None:
    """Gives each image of a loaded data set its position as id: those in the annotation files may occur twice."""
    for number, record in enumerate(records):
        record["im_id"][0] = number


def files_to_blame(dataset: Any) -> str:
    """Which files to look at where a data set cannot be parsed, in words: ppdet does not say which annotation it was.

    Args:
        dataset: one that could not be.
    """
    classes = f" with the classes of {dataset.get_label_list()}" if dataset.label_list else ""
    images = Path(dataset.dataset_dir, dataset.image_dir)
    lines = Path(dataset.get_anno()).read_text(errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        if not _can_be_parsed(dataset, line):
            file = images / (line.split() or [""])[-1]
            return f"{file} (line {number} of {dataset.get_anno()}){classes}"
    return f"{dataset.get_anno()}{classes}"


def _can_be_parsed(dataset: Any, line: str) -> bool:
    """Whether a data set of one line of the list can be, or is passed over, as one of an image that is not there."""
    with tempfile.TemporaryDirectory() as folder:
        alone = copy.copy(dataset)
        alone.anno_path = str(Path(folder, "line.txt"))
        Path(alone.anno_path).write_text(line)
        try:
            alone.parse_dataset()
        except AssertionError:  # no record
            return True
        except Exception:  # whatever it was, the caller has it
            return False
    return True


def coco_truth(dataset: Any) -> dict[str, Any]:
    """Makes COCO's ground truth from what ppdet's `VOCDataSet` loaded.

    A box that VOC calls difficult becomes one that COCO calls a crowd: who finds it gains nothing, who misses it loses
    nothing. VOC's own rules in evaluations, one pixel more in width and height, are not followed.

    Args:
        dataset: parsed, with `gt_bbox` (x1 y1 x2 y2 in pixels), `gt_class` and perhaps `difficult` in its records.

    Returns:
        The mapping that `pycocotools.coco.COCO` has as its `dataset`.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for record in dataset.roidbs:
        image_id = int(record["im_id"][0])
        images.append({"id": image_id, "width": record["w"], "height": record["h"]})
        difficult = record.get("difficult", record["gt_class"] * 0)
        for (x1, y1, x2, y2), label, hard in zip(record["gt_bbox"].tolist(), record["gt_class"].ravel().tolist(),
                                                 difficult.ravel().tolist()):
            annotations.append({"id": len(annotations) + 1, "image_id": image_id, "category_id": label,
                                "bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": hard})
    categories = [{"id": number, "name": name} for name, number in dataset.cname2cid.items()]
    return {"images": images, "annotations": annotations, "categories": categories}
