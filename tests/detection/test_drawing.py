import numpy as np
import pytest

from paddle_sparse_cb.detection.drawing import draw_boxes, put_in_rows, put_side_by_side


def grey(height, width, value=128):
    return np.full((height, width, 3), value, np.uint8)


def test_boxes_are_drawn_where_they_are_and_a_class_keeps_its_colour():
    image = grey(600, 800)
    dog, cat = (1, 0.9, 100.0, 200.0, 300.0, 400.0), (0, 0.8, 400.0, 200.0, 600.0, 400.0)
    picture = draw_boxes(image, [dog, cat], ["cat", "dog"])
    assert (image == 128).all()
    assert picture.shape == image.shape
    assert (picture[300, 100] != 128).any()  # on the left edge
    assert (picture[300, 200] == 128).all()  # inside
    assert (picture[500:] == 128).all()
    assert (picture[300, 100] != picture[300, 400]).any()
    assert (picture[300, 100] == draw_boxes(image, [dog], ["cat", "dog"])[300, 100]).all()
    assert (draw_boxes(image, [], ["cat"]) == 128).all()


def test_small_images_are_enlarged_so_that_labels_do_not_hide_them():
    picture = draw_boxes(grey(96, 64), [(0, 0.9, 32.0, 48.0, 63.0, 95.0)], ["cat"])
    assert picture.shape == (480, 320, 3)
    assert (picture[300, 160] != 128).any()
    assert (picture[200:, :150] == 128).all()


def test_two_pictures_are_put_side_by_side_below_their_titles():
    pictures = [grey(300, 200, value) for value in (50, 150)]
    both = put_side_by_side(["dense", "a title that is much too long for a picture of this width: sparse"], pictures)
    assert both.shape[1] == 408
    assert (both[-300:, :200] == 50).all()
    assert (both[-300:, -200:] == 150).all()
    assert (both[:-300, :200] < 200).any()  # letters
    assert (both[:-300, 200:208] == 255).all()  # no title leaves its column


def test_a_title_is_one_line():
    picture = grey(300, 400)
    np.testing.assert_array_equal(put_side_by_side(["a\nb"], [picture]), put_side_by_side(["a b"], [picture]))


def test_rows_of_pictures_are_put_below_each_other_below_their_titles():
    both = put_in_rows(["dense", "sparse"], [[grey(300, 200, value), grey(200, 100, 60)] for value in (50, 70)])
    title = len(both) // 2 - 300
    first, second = both[: title + 300], both[title + 300 :]
    assert both.shape[1] == 200 + 8 + 100
    for row, value in ((first, 50), (second, 70)):
        assert (row[:title] < 200).any()  # letters
        assert (row[title:, :200] == value).all()
    assert (first[title : title + 200, 208:308] == 60).all()
    assert (first[title + 200 :, 208:] == 255).all()


@pytest.mark.parametrize(
    "box",
    [
        (0, 0.5, 50, 60, 10, 20),
        (0, 0.5, -1e6, -1e6, 1e6, 1e6),
        (0, 0.5, -1e300, 0, 1e300, np.inf),
        (0, 0.5, 5, 5, 5, 5),
        (0, 0.0, 599.9, 299.9, 600.0, 300.0),
        (1, 0.5, 10, 10, 20, 20),
        (2, None, 10, 10, 20, 20),
    ],
)
def test_unusual_boxes_and_names_can_be_drawn(box):
    assert draw_boxes(grey(300, 600), [box] * 60, ["a" * 500, "松", "<script>"]).shape == (300, 600, 3)


def test_a_label_stays_within_the_picture():
    picture = draw_boxes(grey(480, 480), [(0, 0.9, 470, 100, 480, 200)], ["a long name"])
    assert np.flatnonzero((picture != 128).any(axis=(0, 2)))[0] < 400


def test_annotations_have_no_score():
    box = (50, 60, 200, 200)
    drawn, annotated = (draw_boxes(grey(400, 600), [(0, score, *box)], ["cat"]) for score in (0.9, None))
    assert (annotated != 128).sum() < (drawn != 128).sum()


def test_line_breaks_in_the_name_of_a_class_are_spaces():
    image, boxes = grey(400, 600), [(0, 0.5, 50, 60, 200, 200)]
    for name in ("a\nb", "a\u2029b", "a \x1c b"):
        np.testing.assert_array_equal(draw_boxes(image, boxes, [name]), draw_boxes(image, boxes, ["a b"]))
