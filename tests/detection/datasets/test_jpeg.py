import cv2
import numpy as np
import pytest
from PIL import Image

from paddle_sparse_cb.detection.datasets.jpeg import CheckImageFiles, is_truncated_jpeg

PIXELS = np.random.RandomState(0).randint(0, 256, (40, 60, 3), np.uint8)


def jpegs(folder):
    """The same picture as different programs write it."""
    picture, small = Image.fromarray(PIXELS), Image.fromarray(PIXELS[:16, :16])
    small.save(folder / "small.jpg")
    thumbnail = b"Exif\0\0" + (folder / "small.jpg").read_bytes()  # an end of its own within the head
    cv2.imwrite(str(folder / "opencv.jpg"), PIXELS)
    picture.save(folder / "progressive.jpg", progressive=True)
    picture.save(folder / "thumbnail.jpg", exif=thumbnail)
    picture.save(folder / "restarts.jpg", restart_marker_blocks=1)
    return ["opencv.jpg", "progressive.jpg", "thumbnail.jpg", "restarts.jpg"]


def test_a_jpeg_is_whole_with_its_end_and_cut_short_without(tmp_path):
    for name in jpegs(tmp_path):
        whole = (tmp_path / name).read_bytes()
        assert not is_truncated_jpeg(whole), name
        assert not is_truncated_jpeg(whole + b"what a camera adds"), name
        for length in range(2, len(whole) - 1, 7):
            assert is_truncated_jpeg(whole[:length]), (name, length)


def test_other_formats_are_left_to_opencv():
    assert not is_truncated_jpeg(cv2.imencode(".png", PIXELS)[1].tobytes()[:100])
    assert not is_truncated_jpeg(b"")


def test_a_sample_of_several_images_is_looked_at_image_by_image(tmp_path):
    whole = cv2.imencode(".jpg", PIXELS)[1].tobytes()
    samples = [{"im_file": str(tmp_path / f"{n}.jpg")} for n in range(2)]
    for sample, content in zip(samples, (whole, whole[:-2])):
        (tmp_path / sample["im_file"]).write_bytes(content)
    assert CheckImageFiles(len)(samples[0]) == 1
    with pytest.raises(ValueError, match="cut short"):
        CheckImageFiles(len)(samples)
