import cv2
import numpy as np
from PIL import Image

from paddle_sparse_cb.detection.datasets.jpeg import is_truncated_jpeg

PIXELS = np.random.RandomState(0).randint(0, 256, (40, 60, 3), np.uint8)


def jpegs(folder):
    """Writes the same picture as different programs do, and returns the file names."""
    picture, small = Image.fromarray(PIXELS), Image.fromarray(PIXELS[:16, :16])
    small.save(folder / "small.jpg")
    thumbnail = b"Exif\0\0" + (folder / "small.jpg").read_bytes()  # an end marker within the header
    cv2.imwrite(str(folder / "opencv.jpg"), PIXELS)
    picture.save(folder / "progressive.jpg", progressive=True)
    picture.save(folder / "thumbnail.jpg", exif=thumbnail)
    picture.save(folder / "restarts.jpg", restart_marker_blocks=1)
    return ["opencv.jpg", "progressive.jpg", "thumbnail.jpg", "restarts.jpg"]


def test_a_jpeg_is_complete_with_its_end_and_truncated_without(tmp_path):
    for name in jpegs(tmp_path):
        whole = (tmp_path / name).read_bytes()
        assert not is_truncated_jpeg(whole), name
        assert not is_truncated_jpeg(whole + b"what a camera adds"), name
        for length in range(2, len(whole) - 1, 7):
            assert is_truncated_jpeg(whole[:length]), (name, length)


def test_other_formats_are_never_truncated_jpegs():
    assert not is_truncated_jpeg(cv2.imencode(".png", PIXELS)[1].tobytes()[:100])
    assert not is_truncated_jpeg(b"")
