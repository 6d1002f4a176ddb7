"""Checks of an image file before OpenCV decodes it."""

from __future__ import annotations

import io
import struct

from PIL import Image

from .jpeg import is_truncated_jpeg

# Decoded, it takes 3 bytes per pixel and a copy in another type up to 12. OpenCV itself accepts 1,073,741,824: a PNG of
# a megabyte would take gigabytes.
MAX_PIXELS = 100_000_000
ORIENTATION, QUARTER_TURNS = 0x0112, 5  # EXIF's tag, and the least of its values that exchange width and height


def check_image(content: bytes) -> None:
    """Checks the content of an image file; reads its header only.

    Args:
        content: the bytes of the file.

    Raises:
        ValueError: the file is empty, not an image, truncated, larger than `MAX_PIXELS`, or in a format that OpenCV
            does not read.
    """
    if not content:
        raise ValueError("the file is empty")
    if is_truncated_jpeg(content):
        raise ValueError("truncated JPEG")
    try:
        with Image.open(io.BytesIO(content)) as image:
            format_, (width, height) = image.format, image.size
    except Image.DecompressionBombError as error:
        raise ValueError(str(error)) from None
    except (OSError, SyntaxError, ValueError, struct.error):  # Pillow's for damage in the header
        raise ValueError("not an image, or its header is damaged") from None
    check_size(width, height)
    if format_ == "GIF":
        raise ValueError("OpenCV reads no GIF; convert it to PNG or JPEG")


def check_size(width: int, height: int) -> None:
    """Raises ValueError if an image has more than `MAX_PIXELS`."""
    if width * height > MAX_PIXELS:
        raise ValueError(f"an image must have at most {MAX_PIXELS:,} pixels, got {width} x {height}")
