"""Writes the pictures of a report: images of the training, and validation images with the boxes that were found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..detection.drawing import put_in_rows
from ..detection.evaluation import Box, Evaluation, rank_by_difference
from ..detection.metric import CocoMAP
from ..detection.pictures import draw_file, encode_jpeg
from ..detection.predict import read_image
from ..errors import InputError
from ..utils.distributed import rank_zero_warning
from ..utils.files import atomic_write, valid_text

PICTURES = "pictures"  # folder below the output folder
COMPARISON = f"{PICTURES}/comparison.jpg"  # some validation images: a row for each network
_MOST = 4  # images of each kind


def write_pictures(
    output: Path,
    training: Sequence[dict[str, Any]],
    validation: Sequence[dict[str, Any]],
    metric: CocoMAP,
    evaluations: dict[str, Evaluation],
) -> list[dict[str, Any]]:
    """Writes pictures of some images with their boxes.

    The validation images are examples at even distances in the data set, which `COMPARISON` shows too, and those on
    which dense and sparse network differ most.

    Args:
        output: the output folder; the pictures are written to a folder in it, with names of their own.
        training: ppdet's records of the training images.
        validation: those of the validation images.
        metric: knows the names of the classes and the objects in the validation images.
        evaluations: what the `dense` and the `sparse` network found.

    Returns:
        For each image its `split` (`train`, `example`, or `eval` where the networks differ), the name of its file
        (`image`), and `panels` with a `title` and a `file` below the output folder.
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
    for split, images in (("example", _examples(records, metric)), ("eval", _different(records, evaluations))):
        for number, image in enumerate(images if evaluations else ()):
            found = {kind: one.boxes.get(image, []) for kind, one in evaluations.items()}
            panels = {"annotated": metric.annotated(image), **found}
            pictures.append(_write_panels(output, f"{split}_{number + 1}", split, records[image], panels, names))
    pictures = [picture for picture in pictures if picture["panels"]]
    _write_comparison(output, pictures, evaluations)
    return pictures


def _examples(records: dict[int, dict[str, Any]], metric: CocoMAP) -> list[int]:
    """Images at even distances among those with the most usual number of objects or more."""
    objects = {image: len(metric.annotated(image)) for image in records}
    usual = sorted(objects.values())[len(objects) // 2] if objects else 0
    images = [image for image, count in objects.items() if count >= usual]
    count = min(_MOST, len(images))
    return [images[number * len(images) // count] for number in range(count)]


def _different(records: dict[int, dict[str, Any]], evaluations: dict[str, Evaluation]) -> list[int]:
    if len(evaluations) < 2:
        return []
    ranked = rank_by_difference(evaluations["dense"], evaluations["sparse"])
    return [image for image in ranked if image in records][:_MOST]


def _write_comparison(output: Path, pictures: list[dict[str, Any]], evaluations: dict[str, Evaluation]) -> None:
    """Joins the examples to one picture: a row for each network, with its mAP."""
    examples = [picture["panels"] for picture in pictures if picture["split"] == "example"]
    if not examples:
        return
    titles, rows = [], []
    for kind, evaluation in evaluations.items():
        files = [output / panel["file"] for panels in examples for panel in panels if panel["title"] == kind]
        titles.append(f"{kind}: mAP {100 * evaluation.map:.1f}")
        rows.append([read_image(file) for file in files])
    with atomic_write(output / COMPARISON) as scratch:
        scratch.write_bytes(encode_jpeg(put_in_rows(titles, rows)).content)


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
    try:
        drawn = {title: encode_jpeg(draw_file(image, boxes, names)) for title, boxes in panels.items()}
    except (OSError, InputError) as error:  # it could be read in the training
        rank_zero_warning(f"the report has no picture of {error}")
        drawn = {}
    for title, picture in drawn.items():
        file = f"{PICTURES}/{name}_{title}.jpg"
        with atomic_write(output / file) as scratch:
            scratch.write_bytes(picture.content)
        written.append({"title": title, "file": file})
    return {"split": split, "image": valid_text(image.name), "panels": written}
