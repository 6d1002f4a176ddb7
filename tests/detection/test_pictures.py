import io

import numpy as np
import pytest
from PIL import Image

from paddle_sparse_cb.detection.pictures import beside, draw_boxes, in_rows


def photograph(path, size=(600, 300), **options):
    Image.new("RGB", size, (90, 90, 90)).save(path, **options)
    return path


def opened(picture):
    image = Image.open(io.BytesIO(picture.content))
    assert image.size == (picture.width, picture.height)
    return np.asarray(image.convert("RGB")).astype(int)


def changed(picture):
    """The columns and rows of a picture that are not grey."""
    pixels = opened(picture)
    different = np.abs(pixels - 90).max(axis=2) > 60
    return np.flatnonzero(different.any(axis=0)), np.flatnonzero(different.any(axis=1))


@pytest.mark.parametrize(("size", "scale"), [((600, 300), 0.8), ((300, 600), 0.8), ((80, 64), 4.0), ((400, 400), 1.0)])
def test_boxes_are_drawn_where_they_are_in_the_scaled_image(tmp_path, size, scale):
    width, height = size
    box = (0, None, width / 4, height / 4, width / 2, height / 2)
    picture = draw_boxes(photograph(tmp_path / "a.png", size), [box], ["tree"])
    assert (picture.width, picture.height) == (scale * width, scale * height)
    columns, rows = changed(picture)
    for found, expected in ((columns, width), (rows, height)):
        assert found[0] == pytest.approx(scale * expected / 4, abs=4)
        assert found[-1] == pytest.approx(scale * expected / 2, abs=4)


def test_an_image_is_turned_as_its_exif_data_say(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter to the right
    path = photograph(tmp_path / "a.jpg", (400, 200), exif=exif)
    picture = draw_boxes(path, [(0, 0.5, 0, 380, 20, 400)], ["tree"])
    assert (picture.width, picture.height) == (200, 400)
    assert changed(picture)[1][-1] >= 396


@pytest.mark.parametrize(
    "box",
    [
        (0, 0.5, 50, 60, 10, 20),
        (0, 0.5, -1e6, -1e6, 1e6, 1e6),
        (0, 0.5, 5, 5, 5, 5),
        (0, 0.0, 599.9, 299.9, 600.0, 300.0),
        (1, 0.5, 10, 10, 20, 20),
        (2, 1.0, 10, 10, 20, 20),
    ],
)
def test_unusual_boxes_and_names_can_be_drawn(tmp_path, box):
    draw_boxes(photograph(tmp_path / "a.png"), [box] * 200, ["a" * 500, "松", "<script>"])


def test_what_is_no_image_is_refused(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"<svg onload=alert(1)>")
    with pytest.raises(ValueError, match="not an image"):
        draw_boxes(tmp_path / "a.jpg", [], [])


def test_pictures_are_joined_side_by_side(tmp_path):
    pictures = [draw_boxes(photograph(tmp_path / f"{size}.png", (size, 100)), [], []) for size in (320, 400)]
    joined = beside([("dense", pictures[0].content), ("sparse", pictures[1].content)])
    assert joined.width == 320 + 400 + 6
    assert opened(joined).shape[0] == 118


def test_of_boxes_that_lie_on_each_other_the_best_is_drawn_and_all_that_are_annotated(tmp_path):
    path = photograph(tmp_path / "a.png")
    boxes = [(0, 0.9, 100, 100, 200, 200), (1, 0.8, 101, 100, 201, 200), (1, 0.7, 180, 100, 280, 200)]
    alone = draw_boxes(path, [boxes[0], boxes[2]], ["cat", "dog"])
    assert draw_boxes(path, boxes, ["cat", "dog"]) == alone
    annotated = [(label, None, *corners) for label, _, *corners in boxes]
    assert draw_boxes(path, annotated, ["cat", "dog"]) != draw_boxes(path, annotated[::2], ["cat", "dog"])


def test_a_label_stays_within_the_picture(tmp_path):
    picture = draw_boxes(photograph(tmp_path / "a.png", (400, 400)), [(0, 0.9, 390, 100, 400, 200)], ["cat", "dog"])
    assert changed(picture)[0][0] < 350


def test_rows_of_pictures_have_titles(tmp_path):
    content = draw_boxes(photograph(tmp_path / "a.png", (320, 100)), [], []).content
    joined = in_rows([("dense", [content, content]), ("sparse", [content])])
    title = joined.height // 2 - 100
    assert joined.width == 2 * 320 + 6
    pixels = opened(joined)
    for top in (0, 100 + title):
        assert (pixels[top : top + title] < 100).any()
    assert (pixels[100 + 2 * title + 5 :, 330:] > 240).all()
