"""Pictures of images with boxes, for reports and TensorBoard."""

from __future__ import annotations

import functools
import io
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from .datasets.images import check_image
from .drawing import font_file
from .evaluation import Box, iou

_MIN_SIDE, _MAX_SIDE = 320, 480  # pixels of the longer side of a picture
_MAX_BOXES = 60
_SAME_OBJECT = 0.8  # IoU of two boxes from which on only the better one is drawn, whatever their classes
_QUALITY = 82  # of JPEG
# Distinct on light and dark photographs, and for most colour-blind people: Okabe and Ito, 2008.
_COLORS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#CC79A7", "#D55E00", "#0072B2", "#FFFFFF")
_DARK = ("#0072B2",)  # with white letters


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


def draw_boxes(path: Path, boxes: Sequence[Box], names: Sequence[str]) -> Picture:
    """Draws boxes on an image.

    Args:
        path: the image file; it is turned as its EXIF data say, as OpenCV does when it reads it.
        boxes: class index, score or None, x1, y1, x2, y2 in pixels of the image. The best `_MAX_BOXES` are drawn;
            of boxes that lie on each other, the best one.
        names: of the classes.

    Returns:
        A picture whose longer side has `_MIN_SIDE` to `_MAX_SIDE` pixels.

    Raises:
        ValueError: the file is no image that can be read.
        OSError: the file cannot be read.
    """
    content = path.read_bytes()
    check_image(content)
    try:
        with Image.open(io.BytesIO(content)) as opened:
            image = ImageOps.exif_transpose(opened).convert("RGB")
    except (SyntaxError, struct.error) as error:  # Pillow's for damage that OpenCV overlooks
        raise ValueError(f"damaged: {error}") from None
    side = max(image.size)
    scale = min(_MAX_SIDE / side, max(1.0, _MIN_SIDE / side))
    image = image.resize([max(1, round(scale * length)) for length in image.size], Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for label, score, *corners in _drawn(boxes):
        limits = (image.width + 5, image.height + 5) * 2  # far outside of the image, drawing would take seconds
        corners = [min(max(scale * corner, -5), limit) for corner, limit in zip(corners, limits)]
        _draw_box(draw, image.width, corners, _caption(label, score, names), _COLORS[label % 8])
    return _encode(image)


def _drawn(boxes: Sequence[Box]) -> list[Box]:
    """The boxes to draw, the best ones last, on top."""
    kept: list[Box] = []
    for box in sorted(boxes, key=lambda box: box[1] or 0.0, reverse=True):
        corners = np.array([other[2:] for other in (*kept, box)], dtype=float)
        if box[1] is None or not (iou(corners[-1:], corners[:-1]) > _SAME_OBJECT).any():
            kept.append(box)
        if len(kept) == _MAX_BOXES:
            break
    return kept[::-1]


def _caption(label: int, score: float | None, names: Sequence[str]) -> str:
    """Class and score; no class if there is only one, and its number if the font of Pillow cannot show its name."""
    name = names[label][:24] if names[label].isascii() else f"class {label}"
    parts = [name if len(names) > 1 else "", "" if score is None else f"{score:.2f}"]
    return " ".join(filter(None, parts))


def _draw_box(draw: ImageDraw.ImageDraw, image_width: int, corners: Sequence[float], caption: str, color: str) -> None:
    x1, y1, x2, y2 = corners
    left, top, right, bottom = min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)
    draw.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline="black", width=1)
    draw.rectangle((left, top, right, bottom), outline=color, width=2)
    if not caption:
        return
    font = _font(13)
    width, height = font.getlength(caption), sum(font.getmetrics())
    y = max(0.0, top - height)
    left = max(0.0, min(left, image_width - width - 7))
    draw.rectangle((left, y, left + width + 6, y + height), fill=color)
    draw.text((left + 3, y), caption, fill="white" if color in _DARK else "black", font=font, anchor="la")


@functools.lru_cache(maxsize=4)
def _font(size: int) -> Any:
    return ImageFont.truetype(font_file(), size)


def beside(pictures: Iterable[tuple[str, bytes]]) -> Picture:
    """Joins pictures to one, side by side with a title above each.

    Args:
        pictures: title and content of an image file.
    """
    images = [(title, Image.open(io.BytesIO(content)).convert("RGB")) for title, content in pictures]
    margin, title_height = 6, 18
    width = sum(image.width + margin for _, image in images) - margin
    joined = Image.new("RGB", (width, max(image.height for _, image in images) + title_height), "white")
    draw, left = ImageDraw.Draw(joined), 0
    for title, image in images:
        draw.text((left + 2, 2), title, fill="black", font=_font(12))
        joined.paste(image, (left, title_height))
        left += image.width + margin
    return _encode(joined)


def in_rows(rows: Iterable[tuple[str, Sequence[bytes]]]) -> Picture:
    """Joins pictures to one, a row below the other, with a title above each row.

    Args:
        rows: title and the contents of image files.
    """
    images = [
        (title, [Image.open(io.BytesIO(content)).convert("RGB") for content in contents]) for title, contents in rows
    ]
    gap, title_height = 6, 26
    heights = [max(image.height for image in row) + title_height for _, row in images]
    width = max(sum(image.width + gap for image in row) - gap for _, row in images)
    joined = Image.new("RGB", (width, sum(heights)), "white")
    draw, font, top = ImageDraw.Draw(joined), _font(17), 0
    for (title, row), height in zip(images, heights):
        draw.text((2, top + title_height // 2), title, fill="black", font=font, anchor="lm")
        left = 0
        for image in row:
            joined.paste(image, (left, top + title_height))
            left += image.width + gap
        top += height
    return _encode(joined)


def _encode(image: Image.Image) -> Picture:
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=_QUALITY)
    return Picture(encoded.getvalue(), image.width, image.height)
