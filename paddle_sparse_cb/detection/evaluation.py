"""`Evaluation`: what a detector found on the validation images, by class and by image, and how two of them differ."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..utils.files import write_text

SHOWN_SCORE = 0.3  # boxes below it are measured and not kept

Box = tuple  # class index, score, x1, y1, x2, y2 in image pixels


@dataclass(frozen=True)
class ClassResult:
    """The result of one class.

    Attributes:
        name: the name of the class.
        objects: number of its objects that count.
        ap: COCO's AP over IoU 0.5:0.95, a fraction; None without objects.
    """

    name: str
    objects: int
    ap: float | None


@dataclass(frozen=True)
class Evaluation:
    """An evaluation of a detector.

    Attributes:
        map: COCO's mAP over IoU 0.5:0.95, a fraction.
        ap50: the same at IoU 0.5.
        classes: the results by class, in the order of the class indices.
        boxes: image id to the boxes whose score is at least `SHOWN_SCORE`: class index, score, x1, y1, x2, y2 in image
            pixels.
    """

    map: float
    ap50: float
    classes: list[ClassResult]
    boxes: dict[int, list[Box]]

    def save(self, path: Path) -> None:
        """Writes the evaluation as JSON; coordinates are rounded to a tenth of a pixel."""
        rounded = {
            str(image): [[box[0], round(box[1], 4), *(round(one, 1) for one in box[2:])] for box in boxes]
            for image, boxes in self.boxes.items()
        }
        content = {
            "mAP": self.map if math.isfinite(self.map) else None,
            "AP50": self.ap50 if math.isfinite(self.ap50) else None,
            "classes": [asdict(one) for one in self.classes],
            "min_score": SHOWN_SCORE,
            "boxes": rounded,
        }
        write_text(path, json.dumps(content, allow_nan=False) + "\n")

    @classmethod
    def load(cls, path: Path) -> Evaluation:
        """Reads what `save` wrote.

        Raises:
            InputError: the file is missing or damaged.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            classes = [
                ClassResult(str(one["name"]), int(one["objects"]), _number(one["ap"])) for one in content["classes"]
            ]
            boxes = {int(image): [_box(row, len(classes)) for row in rows] for image, rows in content["boxes"].items()}
            values = [_number(content[key]) for key in ("mAP", "AP50")]
        except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError, OverflowError) as error:
            raise InputError(f"{path}: not a valid evaluation: {type(error).__name__} {error}") from None
        map_, ap50 = (math.nan if value is None else value for value in values)
        return cls(map_, ap50, classes, boxes)


def _number(value: Any) -> float | None:
    if value is not None and not math.isfinite(value):
        raise ValueError(f"{value} is not finite")
    return None if value is None else float(value)


def _box(row: Sequence[Any], classes: int) -> Box:
    label, *numbers = row
    if type(label) is not int or not 0 <= label < classes or len(numbers) != 5 or not np.isfinite(numbers).all():
        raise ValueError(f"{row!r} is not a box of one of {classes} classes")
    return (label, *map(float, numbers))


def rank_by_difference(first: Evaluation, second: Evaluation) -> list[int]:
    """Ranks the images of two evaluations by how much their boxes differ, the most different first.

    A difference is a box without a partner in the other evaluation: one of the same class with an IoU of at least 0.5.
    Among images with equally many, the one whose best scores differ more comes first.
    """
    images = sorted(first.boxes.keys() & second.boxes.keys())
    differences = {image: _difference(first.boxes[image], second.boxes[image]) for image in images}
    return sorted(images, key=lambda image: differences[image], reverse=True)


def _difference(first: list[Box], second: list[Box]) -> tuple[int, float]:
    pairs = 0
    if first and second:
        one, other = np.array(first), np.array(second)
        matches = (iou(one[:, 2:], other[:, 2:]) >= 0.5) & (one[:, :1] == other[:, 0])
        for row in matches:  # greedily, in the order of the scores
            partner = int(row.argmax())
            if row[partner]:
                pairs += 1
                matches[:, partner] = False
    best = [max((box[1] for box in boxes), default=0.0) for boxes in (first, second)]
    return len(first) + len(second) - 2 * pairs, abs(best[0] - best[1])


def iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes [n, 4] and [m, 4] as [n, m]."""
    low, high = np.maximum(first[:, None, :2], second[:, :2]), np.minimum(first[:, None, 2:], second[:, 2:])
    inside = (high - low).clip(0).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).clip(0).prod(axis=1) for boxes in (first, second)]
    return inside / np.maximum(areas[0][:, None] + areas[1] - inside, 1e-9)
