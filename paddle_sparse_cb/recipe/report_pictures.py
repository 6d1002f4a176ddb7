"""Writes the pictures of a report: images of the training, and validation images with the boxes that were found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..detection.evaluation import Box, Evaluation, rank_by_difference
from ..detection.metric import CocoMAP
from ..detection.pictures import draw_boxes
from ..utils.distributed import rank_zero_warning
from ..utils.files import atomic_write, valid_text

PICTURES = "pictures"  # folder below the output folder
_MOST = 4  # images of each data set


def write_pictures(
    output: Path,
    training: Sequence[dict[str, Any]],
    validation: Sequence[dict[str, Any]],
    metric: CocoMAP,
    evaluations: dict[str, Evaluation],
) -> list[dict[str, Any]]:
    """Writes pictures of some images with their boxes.

    Of the validation images, those are chosen on which dense and sparse network differ most.

    Args:
        output: the output folder; the pictures are written to a folder in it, with names of their own.
        training: ppdet's records of the training images.
        validation: those of the validation images.
        metric: knows the names of the classes and the objects in the validation images.
        evaluations: what the `dense` and the `sparse` network found.

    Returns:
        For each image its `split` (`train` or `eval`), the name of its file (`image`), and `panels` with a `title` and
        a `file` below the output folder.
    """
    for stale in (output / PICTURES).glob("*.jpg"):
        stale.unlink()
    count, names = min(_MOST, len(training)), metric.class_names
    pictures = []
    for number in range(count):
        record = training[number * len(training) // count]
        panels = {"annotated": _annotated(record)}
        pictures.append(_write_panels(output, f"train_{number + 1}", "train", record, panels, names))
    records = {int(record["im_id"][0]): record for record in validation}
    images = [image for image in _ranked(evaluations) if image in records][:_MOST]
    for number, image in enumerate(images):
        found = {kind: one.boxes.get(image, []) for kind, one in evaluations.items()}
        panels = {"annotated": metric.annotated(image), **found}
        pictures.append(_write_panels(output, f"eval_{number + 1}", "eval", records[image], panels, names))
    return [picture for picture in pictures if picture["panels"]]


def _ranked(evaluations: dict[str, Evaluation]) -> list[int]:
    """The images of the evaluations, the most interesting first."""
    if len(evaluations) == 2:
        return rank_by_difference(evaluations["dense"], evaluations["sparse"])
    boxes = [one.boxes for one in evaluations.values()]
    return sorted(boxes[0], key=lambda image: len(boxes[0][image]), reverse=True) if boxes else []


def _annotated(record: dict[str, Any]) -> list[Box]:
    boxes, labels = record.get("gt_bbox"), record.get("gt_class")
    if boxes is None or labels is None:
        return []
    return [(int(label), None, *box) for label, box in zip(labels.ravel().tolist(), boxes.tolist())]


def _write_panels(
    output: Path,
    name: str,
    split: str,
    record: dict[str, Any],
    panels: dict[str, list[Box]],
    names: Sequence[str],
) -> dict[str, Any]:
    image, written = Path(record["im_file"]), []
    for title, boxes in panels.items():
        file = f"{PICTURES}/{name}_{title}.jpg"
        try:
            picture = draw_boxes(image, boxes, names)
        except (OSError, ValueError) as error:  # it could be read in the training
            rank_zero_warning(f"the report has no picture of {image}: {error}")
            break
        with atomic_write(output / file) as scratch:
            scratch.write_bytes(picture.content)
        written.append({"title": title, "file": file})
    return {"split": split, "image": valid_text(image.name), "panels": written}
