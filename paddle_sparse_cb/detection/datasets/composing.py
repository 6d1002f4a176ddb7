"""What the composed data sets share: the place of an object on a canvas, and COCO annotations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

_ATTEMPTS = 20


def find_place(
    random: np.random.RandomState, size: tuple[int, int], canvas: int, taken: Sequence[list[int]], max_overlap: float
) -> list[int] | None:
    """Draws a box that overlaps little with those that are taken.

    Args:
        random: source of the position.
        size: width and height of the box in pixels.
        canvas: side of the square canvas in pixels.
        taken: boxes (x, y, width, height).
        max_overlap: the share of the smaller of two boxes that the other one may cover.

    Returns:
        The box (x, y, width, height), or None after some attempts.
    """
    width, height = size
    for _ in range(_ATTEMPTS):
        left, top = random.randint(0, canvas - width + 1), random.randint(0, canvas - height + 1)
        shared = [
            max(0, min(left + width, x + w) - max(left, x)) * max(0, min(top + height, y + h) - max(top, y))
            for x, y, w, h in taken
        ]
        if all(area <= max_overlap * min(width * height, w * h) for area, (_, _, w, h) in zip(shared, taken)):
            return [left, top, width, height]
    return None


class CocoImages:
    """Images that are written to a folder, with their COCO annotations.

    Args:
        folder: the folder.
        classes: the names of the classes, whose categories are numbered from 1.
    """

    def __init__(self, folder: Path, classes: Sequence[str]) -> None:
        self._folder = folder
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []
        self._categories = [{"id": number, "name": name} for number, name in enumerate(classes, 1)]

    def add(self, name: str, pixels: np.ndarray, objects: Iterable[tuple[int, list[int]]], *options: int) -> None:
        """Writes an image.

        Args:
            name: the file, whose suffix is the format.
            pixels: [height, width, 3], uint8, BGR.
            objects: the index of a class, and a box (x, y, width, height) in pixels.
            options: for `cv2.imwrite`.
        """
        import cv2

        cv2.imwrite(str(self._folder / name), pixels, list(options))
        height, width = pixels.shape[:2]
        number = len(self._images) + 1
        self._images.append({"id": number, "file_name": name, "height": height, "width": width})
        for label, box in objects:
            self._annotations.append(
                {
                    "id": len(self._annotations) + 1,
                    "image_id": number,
                    "bbox": box,
                    "iscrowd": 0,
                    "category_id": label + 1,
                    "area": box[2] * box[3],
                }
            )

    def annotations(self) -> dict[str, Any]:
        """The content of a COCO annotation file."""
        return {"images": self._images, "annotations": self._annotations, "categories": self._categories}
