import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from paddle_sparse_cb.detection.datasets.batches import TransformSample
from paddle_sparse_cb.detection.datasets.images import check_image

PIXELS = np.random.RandomState(0).randint(0, 256, (40, 60, 3), np.uint8)


def encoded(format_):
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, format_)
    return file.getvalue()


def png_header(width, height):
    """The start of a PNG; 20 kB of zeros after it would make a gigabyte of pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    checksum = struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + checksum + struct.pack(">I", 9) + b"IDAT"


def jpeg_of_size(width, height):
    """A JPEG whose header declares another size."""
    content = encoded("JPEG")
    frame = content.index(b"\xff\xc0")
    return content[: frame + 5] + struct.pack(">HH", height, width) + content[frame + 9 :]


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "BMP", "TIFF", "WEBP", "PPM"])
def test_the_formats_that_opencv_reads_are_accepted(format_):
    check_image(encoded(format_))
    assert cv2.imdecode(np.frombuffer(encoded(format_), np.uint8), cv2.IMREAD_COLOR).shape == (40, 60, 3)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"not an image", "not an image, or its header is damaged"),
        (encoded("PNG")[:20], "not an image, or its header is damaged"),
        (encoded("JPEG")[:-2], "truncated JPEG"),
        (encoded("GIF"), "OpenCV reads no GIF; convert it to PNG or JPEG"),
        (png_header(12_000, 12_000), "an image must have at most 100,000,000 pixels, got 12000 x 12000"),
        (png_header(30_000, 30_000), "could be decompression bomb"),
        (jpeg_of_size(65_000, 65_000), "could be decompression bomb"),
    ],
)
def test_what_cannot_be_decoded_is_named_with_the_reason_before_it_is(content, reason, tmp_path):
    (tmp_path / "cat.jpg").write_bytes(content)
    error = str(TransformSample(len)({"im_file": str(tmp_path / "cat.jpg"), "im_id": 3}))
    assert error.startswith(f"{tmp_path}/cat.jpg: cannot be used: ValueError: ")
    assert reason in error
    assert "\n" not in error
