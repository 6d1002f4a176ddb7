"""COCO mAP as a `paddle.metric.Metric`, measured by pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import paddle

from ..errors import InputError
from ..utils.text import one_line
from .evaluation import SHOWN_SCORE, Box, ClassResult, Evaluation

_MAX_AREA = 1e10  # square pixels; pycocotools ignores larger objects
_MAX_NUMBER = 1e30  # in an annotation; excludes NaN too


class CocoMAP(paddle.metric.Metric):
    """COCO mAP over IoU 0.5:0.95 (`mAP`) and at IoU 0.5 (`AP50`), as fractions.

    Boxes are collected batch by batch and measured once, when every image has been evaluated. Until then, and on
    training batches, the metric keeps its previous values (NaN before the first evaluation). An image that a
    distributed sampler gave to two ranks counts once.

    Args:
        truth: path of the COCO annotation file, or its content.
        image_ids: ids of the images that an evaluation consists of.

    Attributes:
        last: the last complete evaluation; None before the first one.

    Raises:
        InputError: an annotation would make pycocotools fail in the first evaluation, or no object counts, so that
            there is no mAP.
    """

    def __init__(self, truth: str | dict[str, Any], image_ids: list[int]) -> None:
        super().__init__()
        from pycocotools.coco import COCO

        with contextlib.redirect_stdout(io.StringIO()):
            self._truth = COCO(truth if isinstance(truth, str) else None)
            if isinstance(truth, dict):
                self._truth.dataset = truth
                self._truth.createIndex()
        for number, annotation in self._truth.anns.items():
            if not _can_be_measured(annotation):
                source = truth if isinstance(truth, str) else "EvalDataset"
                raise InputError(
                    f"{source}: annotation {number!r} cannot be used: id, area, iscrowd and the four "
                    f"values of bbox must be numbers below {_MAX_NUMBER:g}, got {str(annotation)[:200]}"
                )
        self._category_ids = self._truth.getCatIds()
        self._image_ids = sorted(image_ids)
        if not any(self.class_objects):
            source = truth if isinstance(truth, str) else "EvalDataset"
            raise InputError(
                f"{source}: no object counts in an evaluation: mAP needs at least one in the "
                f"{len(set(image_ids))} images that is neither a crowd nor marked as difficult"
            )
        self.last: Evaluation | None = None
        self._found: dict[int, list[dict[str, Any]]] = {}
        self._measured = [float("nan"), float("nan")]

    @property
    def class_names(self) -> list[str]:
        """The names of the classes in the order of the network's class indices."""
        return [one_line(str(self._truth.cats[number].get("name", number))) for number in self._category_ids]

    @property
    def class_objects(self) -> list[int]:
        """The number of objects of each class that count in an evaluation."""
        counts = Counter(annotation["category_id"] for annotation in self._annotations(self._image_ids))
        return [counts[number] for number in self._category_ids]

    def annotated(self, image_id: int) -> list[Box]:
        """Returns the objects in an image that count in an evaluation, as boxes without a score."""
        return [self._box(annotation) for annotation in self._annotations([image_id])]

    def _annotations(self, image_ids: list[int]) -> Iterator[dict[str, Any]]:
        categories = set(self._category_ids)
        for image_id in image_ids:
            for annotation in self._truth.imgToAnns.get(image_id, []):
                counts = not annotation["iscrowd"] and 0 <= annotation["area"] <= _MAX_AREA
                if counts and annotation.get("category_id") in categories:
                    yield annotation

    def name(self) -> list[str]:
        """Returns the names under which hapi logs the two values."""
        return ["mAP", "AP50"]

    def reset(self) -> None:
        """Discards the boxes of an unfinished evaluation and keeps the previous values."""
        self._found.clear()

    def compute(self, *outputs: paddle.Tensor) -> Any:
        """Returns (boxes, im_id) of an evaluation batch, and nothing for the losses of a training batch."""
        return list(outputs) if len(outputs) == 2 else []

    def update(self, boxes: np.ndarray | None = None, im_id: np.ndarray | None = None) -> list[float]:
        """Collects a batch.

        Args:
            boxes: [b, n, 6] with class, score, x1, y1, x2, y2 in image pixels; class -1 is padding.
            im_id: [b, 1], image ids.

        Returns:
            The last measured [mAP, AP50].
        """
        if boxes is None or im_id is None:
            return self._measured
        for image_id, rows in zip(im_id.reshape(-1).tolist(), boxes):
            self._found[image_id] = [
                {
                    "image_id": image_id,
                    "category_id": self._category_ids[int(label)],
                    "score": score,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                }
                for label, score, x1, y1, x2, y2 in rows.tolist()
                if label >= 0
            ]
        if len(self._found) >= len(self._image_ids):
            self._measured = self._measure()
            self._found.clear()
        return self._measured

    def accumulate(self) -> list[float]:
        """Returns the last measured [mAP, AP50]."""
        return self._measured

    def _measure(self) -> list[float]:
        from pycocotools.cocoeval import COCOeval

        results = [box for boxes in self._found.values() for box in boxes]
        if not results:  # loadRes fails on an empty list
            self.last = self._describe([0.0, 0.0], lambda number: 0.0)
            return [0.0, 0.0]
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation = COCOeval(self._truth, self._truth.loadRes(results), "bbox")
            evaluation.params.imgIds = self._image_ids
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        # COCOeval returns -1 if the images have no objects.
        measured = [float(stat) if stat >= 0 else float("nan") for stat in evaluation.stats[:2]]
        # [IoU thresholds, recalls, classes, areas, numbers of boxes]; the first area is all, the last number the most.
        precision, numbers = evaluation.eval["precision"][:, :, :, 0, -1], list(evaluation.params.catIds)
        self.last = self._describe(measured, lambda number: float(precision[:, :, numbers.index(number)].mean()))
        return measured

    def _describe(self, measured: list[float], class_ap: Callable[[int], float]) -> Evaluation:
        """Describes an evaluation by class; a class without objects has no AP."""
        classes = [
            ClassResult(name, objects, class_ap(number) if objects else None)
            for name, objects, number in zip(self.class_names, self.class_objects, self._category_ids)
        ]
        boxes = {
            image: [self._box(one) for one in found if one["score"] >= SHOWN_SCORE]
            for image, found in self._found.items()
        }
        return Evaluation(measured[0], measured[1], classes, boxes)

    def _box(self, annotation: dict[str, Any]) -> Box:
        x, y, width, height = annotation["bbox"]
        label = self._category_ids.index(annotation["category_id"])
        return label, annotation.get("score"), x, y, x + width, y + height


def _can_be_measured(annotation: dict[str, Any]) -> bool:
    box = annotation.get("bbox")
    numbers = [*(annotation.get(key) for key in ("id", "area", "iscrowd")), *(box if isinstance(box, list) else ())]
    return len(numbers) == 7 and all(
        isinstance(number, (int, float)) and abs(number) < _MAX_NUMBER for number in numbers
    )
