"""Images cut short: libjpeg fills up what is missing with grey, without a word to the program that asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

_BEGIN, _SCAN, _END = b"\xff\xd8", 0xDA, b"\xff\xd9"
_ALONE = frozenset({0x01, *range(0xD0, 0xDA)})  # markers without a length behind them


class CheckImageFiles:
    """Transforms of one sample, once its image files have been found whole.

    Args:
        transforms: ppdet's, a callable on a sample, or on the list of samples that a mosaic or a mixup is made of.
    """

    def __init__(self, transforms: Callable[[Any], dict[str, Any]]) -> None:
        self.transforms = transforms

    def __call__(self, sample: Any) -> dict[str, Any]:
        """Transforms a sample.

        Raises:
            ValueError: a JPEG ends before its image does. Other formats have checksums, which OpenCV looks at.
        """
        for part in sample if isinstance(sample, list) else [sample]:
            if "im_file" in part and is_truncated_jpeg(Path(part["im_file"]).read_bytes()):
                raise ValueError("the JPEG is cut short")
        return self.transforms(sample)


def is_truncated_jpeg(content: bytes) -> bool:
    """Whether a JPEG ends before its image does; False for what is no JPEG (ITU-T T.81, annex B)."""
    if not content.startswith(_BEGIN):
        return False
    at = len(_BEGIN)
    while True:
        at = content.find(b"\xff", at)
        if at < 0 or at + 4 > len(content):
            return True
        marker = content[at + 1]
        if marker == _SCAN:  # from here on 0xff is followed by no 0xd9 until the end; a thumbnail's end lies before
            return content.find(_END, at) < 0
        if marker in _ALONE:
            at += 2
        elif marker == 0xFF:
            at += 1
        else:
            at += 2 + int.from_bytes(content[at + 2:at + 4], "big")
