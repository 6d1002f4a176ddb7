"""Pictures of boxes, drawn by supervision."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from .predict import Box

_LEAST_SIDE = 480  # pixels of a picture's longer side: on smaller ones the labels would hide the objects
_GAP = 8  # pixels between two pictures
# Dark enough for white letters.
_COLOURS = (
    *("#1f77b4", "#c5282f", "#237d23", "#7a4fa3", "#b85a00"),
    *("#0e7c86", "#b0397a", "#4b5d16", "#8c564b", "#566573"),
)
_BACKGROUND, _FOREGROUND = (255, 255, 255), (32, 32, 32)


def draw_boxes(image: np.ndarray, boxes: Sequence[Box], labels: Sequence[str]) -> np.ndarray:
    """Draws boxes with their classes and scores; a class has the same colour in every picture.

    Args:
        image: [height, width, 3], uint8, RGB; it is not changed.
        boxes: in pixels of the image.
        labels: the names of all classes.

    Returns:
        The picture, as the image; a small image is enlarged by a whole factor.
    """
    import cv2
    import supervision

    factor = -(-_LEAST_SIDE // max(image.shape[:2]))
    height, width = (side * factor for side in image.shape[:2])
    picture = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC) if factor > 1 else image.copy()
    if not boxes:
        return picture
    boxes = sorted(boxes, key=lambda box: box.score)  # the best ones on top
    found = supervision.Detections(
        xyxy=np.array([box.box for box in boxes], dtype=float) * factor,
        confidence=np.array([box.score for box in boxes]),
        class_id=np.array([labels.index(box.label) for box in boxes]),
    )
    thickness = supervision.calculate_optimal_line_thickness((width, height))
    colours = supervision.ColorPalette.from_hex(list(_COLOURS))
    picture = supervision.BoxAnnotator(colours, thickness).annotate(np.ascontiguousarray(picture[..., ::-1]), found)
    annotator = supervision.RichLabelAnnotator(
        colours, font_path=font_file(), font_size=_font_size(picture), text_padding=3, smart_position=len(boxes) < 30
    )
    drawn = np.asarray(annotator.annotate(picture, found, [f"{box.label} {box.score:.2f}" for box in boxes]))
    return np.ascontiguousarray(drawn[..., ::-1])  # supervision draws in BGR


def put_side_by_side(titles: Sequence[str], pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Puts pictures of one size beside each other, each below its title, whose end is shown if it is too long.

    Args:
        titles: one line for each picture.
        pictures: [height, width, 3], uint8, RGB.

    Returns:
        The picture of all.
    """
    from PIL import Image, ImageDraw, ImageFont

    height, width = pictures[0].shape[:2]
    size = _font_size(pictures[0])
    strip = 2 * size
    canvas = Image.new("RGB", (len(pictures) * (width + _GAP) - _GAP, height + strip), _BACKGROUND)
    draw, font = ImageDraw.Draw(canvas), ImageFont.truetype(font_file(), size)
    for number, (title, picture) in enumerate(zip(titles, pictures)):
        left = number * (width + _GAP)
        while font.getlength(title) > width and len(title) > 1:
            title = f"…{title[2:]}"
        draw.text((left + width // 2, strip // 2), title, _FOREGROUND, font, anchor="mm")
        canvas.paste(Image.fromarray(picture), (left, strip))
    return np.asarray(canvas)


def _font_size(picture: np.ndarray) -> int:
    return max(13, round(max(picture.shape[:2]) / 55))


@functools.lru_cache(maxsize=1)
def font_file() -> str:
    """The path of DejaVu Sans, which comes with matplotlib, on which supervision depends."""
    spec: Any = find_spec("matplotlib")
    return str(Path(spec.submodule_search_locations[0], "mpl-data", "fonts", "ttf", "DejaVuSans.ttf"))
