import numpy as np
import pytest
from PIL import Image

from paddle_sparse_cb import InputError
from paddle_sparse_cb.detection.pictures import draw_file, encode_jpeg
from paddle_sparse_cb.detection.predict import read_image


def photograph(path, size=(600, 300), **options):
    Image.new("RGB", size, (90, 90, 90)).save(path, **options)
    return path


def changed(pixels):
    """The columns and rows of a picture that are not grey."""
    different = np.abs(pixels.astype(int) - 90).max(axis=2) > 60
    return np.flatnonzero(different.any(axis=0)), np.flatnonzero(different.any(axis=1))


@pytest.mark.parametrize(("size", "scale"), [((600, 300), 0.8), ((300, 600), 0.8), ((80, 64), 6.0), ((480, 400), 1.0)])
def test_boxes_are_drawn_where_they_are_in_the_scaled_image(tmp_path, size, scale):
    width, height = size
    box = (0, None, width / 4, height / 4, width / 2, height / 2)
    drawn = draw_file(photograph(tmp_path / "a.png", size), [box], [" "])
    assert drawn.shape == (scale * height, scale * width, 3)
    columns, rows = changed(drawn)
    assert columns[-1] == pytest.approx(scale * width / 2, abs=4)
    assert rows[-1] == pytest.approx(scale * height / 2, abs=4)
    assert columns[0] == pytest.approx(scale * width / 4, abs=4)


def test_an_image_is_turned_as_its_exif_data_say(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter to the right
    path = photograph(tmp_path / "a.jpg", (480, 240), exif=exif)
    drawn = draw_file(path, [(0, 0.5, 0, 460, 20, 480)], ["tree"])
    assert drawn.shape == (480, 240, 3)
    assert changed(drawn)[1][-1] >= 476


def test_what_is_no_image_is_refused(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"<svg onload=alert(1)>")
    with pytest.raises(InputError, match="not an image"):
        draw_file(tmp_path / "a.jpg", [], [])


def test_of_boxes_that_lie_on_each_other_the_best_is_drawn_and_all_that_are_annotated(tmp_path):
    path = photograph(tmp_path / "a.png")
    boxes = [(0, 0.9, 100, 100, 200, 200), (1, 0.8, 101, 100, 201, 200), (1, 0.7, 180, 100, 280, 200)]
    alone = draw_file(path, [boxes[0], boxes[2]], ["cat", "dog"])
    assert (draw_file(path, boxes, ["cat", "dog"]) == alone).all()
    annotated = [(label, None, *corners) for label, _, *corners in boxes]
    assert (draw_file(path, annotated, ["cat", "dog"]) != draw_file(path, annotated[::2], ["cat", "dog"])).any()


def test_a_picture_is_a_jpeg_file_of_its_size(tmp_path):
    pixels = np.full((40, 60, 3), (200, 100, 50), np.uint8)
    picture = encode_jpeg(pixels)
    (tmp_path / "a.jpg").write_bytes(picture.content)
    assert (picture.width, picture.height) == (60, 40)
    np.testing.assert_allclose(read_image(tmp_path / "a.jpg").astype(int), pixels, atol=3)


@pytest.mark.parametrize("size", [(2, 70_000), (70_000, 2)])
def test_a_picture_is_no_larger_than_a_jpeg_can_be(size):
    picture = encode_jpeg(np.zeros((*size, 3), np.uint8))
    assert max(picture.width, picture.height) == 65_500
    assert min(picture.width, picture.height) == 1
