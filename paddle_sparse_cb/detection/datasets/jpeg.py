"""Detection of truncated JPEG files: libjpeg fills the missing part with grey and reports no error."""

from __future__ import annotations

_START_OF_IMAGE, _END_OF_IMAGE, _START_OF_SCAN = b"\xff\xd8", b"\xff\xd9", 0xDA
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xDA)})  # markers that no length follows


def is_truncated_jpeg(content: bytes) -> bool:
    """Whether a JPEG file ends before its image does (ITU-T T.81, annex B).

    Args:
        content: the bytes of a file. Other formats give False: they have checksums, which OpenCV verifies.
    """
    if not content.startswith(_START_OF_IMAGE):
        return False
    position = len(_START_OF_IMAGE)
    while True:
        position = content.find(b"\xff", position)
        if position < 0 or position + 4 > len(content):
            return True
        marker = content[position + 1]
        if marker == _START_OF_SCAN:
            # The image data contain no end marker; that of a thumbnail comes before the scan.
            return content.find(_END_OF_IMAGE, position) < 0
        if marker in _WITHOUT_LENGTH:
            position += 2
        elif marker == 0xFF:
            position += 1
        else:
            position += 2 + int.from_bytes(content[position + 2 : position + 4], "big")
