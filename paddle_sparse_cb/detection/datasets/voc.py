"""Annotations in Pascal VOC's format: a list of images and XML files. `coco` has the same functions for its format."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def finish(dataset: Any) -> None:
    """Numbers the images of a parsed data set: the ids in VOC's annotation files need not be unique."""
    for number, record in enumerate(dataset.roidbs):
        if "im_id" in record:
            record["im_id"][0] = number


def classes(dataset: Any) -> tuple[str, Mapping[Any, int]]:
    """Returns the file that defines the classes of a parsed data set, and the number of each of these classes."""
    source = dataset.get_label_list() if dataset.label_list else dataset.get_anno()
    return str(source), dataset.cname2cid


def invalid_files(dataset: Any) -> str:
    """Names the files to look at if a data set cannot be parsed; ppdet does not say which annotation is invalid."""
    label_list = f" with the classes of {dataset.get_label_list()}" if dataset.label_list else ""
    images = Path(dataset.dataset_dir, dataset.image_dir)
    lines = Path(dataset.get_anno()).read_text(errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        if not _can_be_parsed(dataset, line):
            file = images / (line.split() or [""])[-1]
            return f"{file} (line {number} of {dataset.get_anno()}){label_list}"
    return f"{dataset.get_anno()}{label_list}"


def _can_be_parsed(dataset: Any, line: str) -> bool:
    """Whether ppdet parses one line of the list, or skips it because its image does not exist."""
    with tempfile.TemporaryDirectory() as folder:
        single = copy.copy(dataset)
        single.anno_path = str(Path(folder, "line.txt"))
        Path(single.anno_path).write_text(line)
        try:
            single.parse_dataset()
        except AssertionError:  # no record: the line was skipped
            return True
        except Exception:  # the caller reports the error
            return False
    return True


def ground_truth(dataset: Any) -> dict[str, Any]:
    """Converts the records of ppdet's `VOCDataSet` to COCO's ground truth.

    A box marked as difficult becomes a crowd box: detecting it gains nothing, and missing it costs nothing. COCO's
    rules of evaluation apply; VOC's own, one more pixel in width and height, do not.

    Args:
        dataset: parsed, with `gt_bbox` (x1 y1 x2 y2 in pixels), `gt_class` and optionally `difficult` in its records.

    Returns:
        The mapping that `pycocotools.coco.COCO` has as its `dataset`.

    Raises:
        KeyError: the records have no boxes or classes.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for record in dataset.roidbs:
        image_id = int(record["im_id"][0])
        images.append({"id": image_id, "width": record["w"], "height": record["h"]})
        difficult = record.get("difficult", record["gt_class"] * 0)
        for (x1, y1, x2, y2), label, crowd in zip(
            record["gt_bbox"].tolist(), record["gt_class"].ravel().tolist(), difficult.ravel().tolist()
        ):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": label,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": crowd,
                }
            )
    categories = [{"id": number, "name": name} for name, number in dataset.cname2cid.items()]
    return {"images": images, "annotations": annotations, "categories": categories}
