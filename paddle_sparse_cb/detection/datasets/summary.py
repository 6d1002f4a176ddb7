"""Counts and sizes of annotated images, by which a recipe is fitted to them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import InputError


@dataclass(frozen=True)
class DataSummary:
    """Counts and sizes.

    Attributes:
        images: the number of images with boxes.
        empty: the number of images without boxes.
        boxes: the number of boxes of each class, in the order of the classes.
        width: median width of the images in pixels.
        height: median height.
        small_share: a quarter of the boxes are smaller than this share of the side of their image. The side of a box is
            the square root of its area, and so is that of an image.
    """

    images: int
    empty: int
    boxes: dict[str, int]
    width: int
    height: int
    small_share: float

    def __str__(self) -> str:
        listed = ", ".join(
            f"{name} {count:,}" for name, count in sorted(self.boxes.items(), key=lambda pair: -pair[1])[:8]
        )
        more = ", ..." if len(self.boxes) > 8 else ""
        empty = f" ({self.empty:,} more without boxes)" if self.empty else ""
        return f"{self.images:,} images{empty}, {sum(self.boxes.values()):,} boxes: {listed}{more}"


def summarize(content: dict[str, Any]) -> DataSummary:
    """Counts the usable images and boxes of a COCO file's content.

    Raises:
        InputError: no image has a box with an area.
    """
    sizes = {
        image["id"]: (float(image.get("width") or 0), float(image.get("height") or 0)) for image in content["images"]
    }
    names = {category["id"]: str(category["name"]) for category in content["categories"]}
    counts: Counter[str] = Counter()
    shares: list[float] = []
    with_boxes = set()
    for annotation in content["annotations"]:
        image, category, (_, _, width, height) = annotation["image_id"], annotation["category_id"], annotation["bbox"]
        area = float(np.prod(sizes.get(image, (0.0, 0.0))))
        if category in names and area > 0 and width > 0 and height > 0 and not annotation.get("iscrowd"):
            counts[names[category]] += 1
            shares.append(float(np.sqrt(width * height / area)))
            with_boxes.add(image)
    if not shares:
        raise InputError("no image has a box")
    width, height = (int(side) for side in np.median([sizes[image] for image in with_boxes], axis=0))
    return DataSummary(
        len(with_boxes),
        len(sizes) - len(with_boxes),
        {name: counts[name] for name in names.values()},
        width,
        height,
        float(np.quantile(shares, 0.25)),
    )
