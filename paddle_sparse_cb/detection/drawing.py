"""Pictures of boxes, drawn by supervision."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..utils.text import one_line
from .evaluation import Box
from .fonts import find_font, has_letters

LEAST_SIDE = 480  # pixels of a picture's longer side: on smaller ones the labels would hide the objects
_GAP = 8  # pixels between two pictures
_LONGEST_NAME = 24  # letters of a class
_BESIDE_NAMES = "class 0123456789."  # the other letters of a caption
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
        boxes: class index, score (None for an annotation), x1, y1, x2, y2 in pixels of the image.
        labels: the names of all classes.

    Returns:
        The picture, as the image; a small image is enlarged by a whole factor.
    """
    import cv2
    import supervision

    factor = -(-LEAST_SIDE // max(image.shape[:2]))
    height, width = (side * factor for side in image.shape[:2])
    picture = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC) if factor > 1 else image.copy()
    if not boxes:
        return picture
    boxes = sorted(boxes, key=lambda box: box[1] or 0.0)  # the best ones on top
    found = supervision.Detections(
        xyxy=_visible(np.array([box[2:] for box in boxes], dtype=float) * factor, width, height),
        class_id=np.array([box[0] for box in boxes]),
    )
    thickness = supervision.calculate_optimal_line_thickness((width, height))
    colours = supervision.ColorPalette.from_hex(list(_COLOURS))
    picture = supervision.BoxAnnotator(colours, thickness).annotate(np.ascontiguousarray(picture[..., ::-1]), found)
    labels = [one_line(label) for label in labels]
    font = find_font("".join((*labels, _BESIDE_NAMES)))
    annotator = supervision.RichLabelAnnotator(
        colours, font_path=str(font), font_size=_font_size(picture), text_padding=3, smart_position=len(boxes) < 30
    )
    drawn = np.asarray(annotator.annotate(picture, found, [_caption(box, labels, font) for box in boxes]))
    return np.ascontiguousarray(drawn[..., ::-1])  # supervision draws in BGR


def _visible(corners: np.ndarray, width: int, height: int) -> np.ndarray:
    """Orders the corners, and moves those far outside next to the image; annotations may have any numbers."""
    first, second = corners[:, :2], corners[:, 2:]
    ordered = np.hstack([np.minimum(first, second), np.maximum(first, second)])
    return np.clip(ordered, -5, [width + 5, height + 5] * 2)


def _caption(box: Box, labels: Sequence[str], font: Path) -> str:
    """Class and score; a class by its number if the font does not have its letters."""
    name = labels[box[0]] if has_letters(font, labels[box[0]]) else f"class {box[0]}"
    return name[:_LONGEST_NAME] + ("" if box[1] is None else f" {box[1]:.2f}")


def put_side_by_side(titles: Sequence[str], pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Puts pictures of one size beside each other, each below its title, whose end is shown if it is too long.

    Args:
        titles: one line for each picture.
        pictures: [height, width, 3], uint8, RGB.

    Returns:
        The picture of all.
    """
    return _join([_with_title(title, picture, _font_size(picture)) for title, picture in zip(titles, pictures)])


def put_in_rows(titles: Sequence[str], rows: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """Puts rows of pictures below each other, each row below its title.

    Args:
        titles: one line for each row.
        rows: equally many pictures in each, [height, width, 3], uint8, RGB; those in one place have one size.

    Returns:
        The picture of all.
    """
    return np.vstack([_with_title(title, _join(row), 2 * _font_size(row[0])) for title, row in zip(titles, rows)])


def _join(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Puts pictures beside each other with gaps; the space below lower ones is empty."""
    height, width = max(len(picture) for picture in pictures), sum(picture.shape[1] + _GAP for picture in pictures)
    joined = np.full((height, width - _GAP, 3), _BACKGROUND, np.uint8)
    left = 0
    for picture in pictures:
        joined[: len(picture), left : left + picture.shape[1]] = picture
        left += picture.shape[1] + _GAP
    return joined


def _with_title(title: str, picture: np.ndarray, size: int) -> np.ndarray:
    from PIL import Image, ImageDraw, ImageFont

    width, title = picture.shape[1], one_line(title)
    strip = Image.new("RGB", (width, 2 * size), _BACKGROUND)
    font = ImageFont.truetype(str(find_font(title)), size)
    while font.getlength(title) > width and len(title) > 1:
        title = f"…{title[2:]}"
    ImageDraw.Draw(strip).text((width // 2, size), title, _FOREGROUND, font, anchor="mm")
    return np.vstack([np.asarray(strip), picture])


def _font_size(picture: np.ndarray) -> int:
    return max(15, round(max(picture.shape[:2]) / 55))
