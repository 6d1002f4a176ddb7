"""Pictures of image files with boxes, as JPEG files for reports and TensorBoard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .drawing import LEAST_SIDE, draw_boxes
from .evaluation import Box, iou
from .predict import read_image

_MOST_BOXES = 60
_SAME_OBJECT = 0.8  # IoU of two boxes from which on only the better one is drawn, whatever their classes
_QUALITY = 85
_LARGEST_JPEG = 65_500  # pixels of a side, the limit of OpenCV's encoder


@dataclass(frozen=True)
class Picture:
    """A picture as a file.

    Attributes:
        content: the content of a JPEG file.
        width: in pixels.
        height: in pixels.
    """

    content: bytes
    width: int
    height: int


def encode_jpeg(pixels: np.ndarray, quality: int = _QUALITY) -> Picture:
    """Returns a picture of pixels [height, width, 3], uint8, RGB, scaled down if JPEG files cannot be as large."""
    import cv2

    scale = _LARGEST_JPEG / max(pixels.shape[:2])
    if scale < 1:
        size = [max(1, int(scale * side)) for side in pixels.shape[1::-1]]
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    _, content = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return Picture(content.tobytes(), pixels.shape[1], pixels.shape[0])


def draw_file(path: Path, boxes: Sequence[Box], names: Sequence[str]) -> np.ndarray:
    """Draws boxes on an image file, which is scaled to `LEAST_SIDE` pixels on its longer side.

    Args:
        path: the image file.
        boxes: see `draw_boxes`. The best `_MOST_BOXES` are drawn; of boxes that lie on each other, the best one.
        names: of the classes.

    Returns:
        [height, width, 3], uint8, RGB.

    Raises:
        InputError: the file is missing, or no image that can be read.
    """
    import cv2

    image = read_image(path)
    height, width = image.shape[:2]
    scale = LEAST_SIDE / max(height, width)
    size = [max(1, round(scale * side)) for side in (width, height)]
    scaled = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    drawn = [(label, score, *(scale * corner for corner in corners)) for label, score, *corners in _select(boxes)]
    return draw_boxes(scaled, drawn, names)


def _select(boxes: Sequence[Box]) -> list[Box]:
    kept: list[Box] = []
    for box in sorted(boxes, key=lambda box: box[1] or 0.0, reverse=True):
        corners = np.array([other[2:] for other in (*kept, box)], dtype=float)
        if box[1] is None or not (iou(corners[-1:], corners[:-1]) > _SAME_OBJECT).any():
            kept.append(box)
        if len(kept) == _MOST_BOXES:
            break
    return kept
