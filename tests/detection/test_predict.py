"""Images to inputs, and outputs to boxes."""

import cv2
import numpy as np
import pytest
from PIL import Image

from paddle_sparse_cb import InputError
from paddle_sparse_cb.detection.infer_config import InferConfig
from paddle_sparse_cb.detection.predict import Box, Preprocessor, check_pixels, find_boxes, read_image

RESIZE = {"type": "Resize", "target_size": [64, 32], "keep_ratio": False, "interp": 2}
CONFIG = InferConfig((RESIZE, {"type": "Permute"}), ("cat", "dog"), nms={"name": "MultiClassNMS", "nms_threshold": 0.5})


def ramp(height, width):
    """An image whose pixels tell their column and row."""
    rows, columns = np.mgrid[:height, :width].astype(np.uint8)
    return np.stack([columns, rows, rows * 0 + 99], axis=2)


def boxes(outputs, threshold=0.0, size=(100, 200)):
    scale = {"scale_factor": np.array([[64 / size[0], 32 / size[1]]], np.float32)}
    return find_boxes(outputs, scale, CONFIG, size, threshold)


def test_an_image_is_read_in_rgb_as_its_orientation_says(tmp_path):
    image = Image.fromarray(ramp(40, 60))
    exif = image.getexif()
    exif[0x0112] = 6  # turned by 90 degrees
    image.save(tmp_path / "turned.png", exif=exif)
    image.save(tmp_path / "plain.png")
    assert (read_image(tmp_path / "plain.png") == ramp(40, 60)).all()
    image.convert("L").save(tmp_path / "grey.png")
    assert read_image(tmp_path / "grey.png").shape == (40, 60, 3)
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg").shape == (60, 40, 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"no image", "not an image"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "truncated JPEG"),
        (None, "no such image file"),
    ],
)
def test_an_unreadable_image_is_an_error_of_one_line(content, message, tmp_path):
    if content is not None:
        (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(InputError, match=rf"a\.jpg: {message}"):
        read_image(tmp_path / "a.jpg")


def test_an_image_with_damaged_pixels_is_an_error_of_one_line(tmp_path):
    _, encoded = cv2.imencode(".png", ramp(64, 64))
    damaged = bytearray(encoded.tobytes())
    damaged[60:80] = bytes(20)
    (tmp_path / "a.png").write_bytes(bytes(damaged[: len(damaged) // 2]))
    with pytest.raises(InputError, match=r"a\.png: OpenCV cannot decode this image"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8), "x", None, [[1, 2]]]
)
def test_what_is_no_array_of_pixels_is_an_error(image):
    with pytest.raises(InputError, match="must be a path or an array"):
        check_pixels(image)
    assert check_pixels(ramp(4, 5)).shape == (4, 5, 3)


def test_an_enormous_array_is_an_error():
    with pytest.raises(InputError, match="at most 100,000,000 pixels, got 100000 x 100000"):
        check_pixels(np.broadcast_to(np.uint8(0), (100_000, 100_000, 3)))


def test_preprocessing_gives_the_input_of_the_network_and_leaves_the_image():
    image = ramp(100, 200)
    inputs = Preprocessor(CONFIG)(image)
    assert (image == ramp(100, 200)).all()
    assert inputs["image"].shape == (1, 3, 64, 32)
    assert inputs["image"].dtype == np.float32
    assert inputs["scale_factor"].tolist() == [[pytest.approx(0.64), pytest.approx(0.16)]]
    assert inputs["image"][0, 0, 0, 31] > inputs["image"][0, 0, 0, 0]  # the first channel tells the column: RGB


def test_boxes_have_names_and_are_sorted_filtered_and_clipped():
    rows = np.array(
        [
            [0, 0.2, 10, 20, 30, 40],
            [1, 0.9, -5, -6, 250, 90],
            [-1, 0.99, 0, 0, 9, 9],  # padding
            [0, 0.5, 300, 0, 400, 50],  # outside of the image
        ],
        np.float32,
    )
    found = boxes({"a": rows})
    assert found[0] == Box("dog", pytest.approx(0.9), (0.0, 0.0, 200.0, 90.0))
    assert found[1] == Box("cat", pytest.approx(0.2), (10.0, 20.0, 30.0, 40.0))
    assert len(found) == 2
    assert [box.label for box in boxes({"a": rows}, threshold=0.5)] == ["dog"]
    assert boxes({"a": rows, "count": np.array([1], np.int32)}) == found[1:]
    assert boxes({"a": np.zeros((0, 6), np.float32), "count": np.array([0])}) == []
    assert found[0].to_dict() == {"class": "dog", "score": 0.9, "box": [0.0, 0.0, 200.0, 90.0]}


@pytest.mark.parametrize("order", [1, -1])
def test_outputs_without_nms_are_suppressed_and_scaled_to_the_image(order):
    network_boxes = np.array([[[0, 0, 16, 32], [1, 0, 16, 32], [16, 32, 32, 64]]], np.float32)
    scores = np.zeros((1, 2, 3), np.float32)
    scores[0, 1] = 0.9, 0.8, 0.7
    outputs = dict(list({"boxes": network_boxes, "scores": scores}.items())[::order])
    found = boxes(outputs)
    assert [(box.label, round(box.score, 3)) for box in found] == [("dog", 0.9), ("dog", 0.7)]
    assert found[0].box == pytest.approx((0, 0, 100, 50))
    assert found[1].box == pytest.approx((100, 50, 200, 100))


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({}, "the outputs must be boxes"),
        ({"a": np.zeros((1, 80, 8, 8))}, r"the outputs must be boxes, as exported with .*, got \[1, 80, 8, 8\]"),
        ({"a": np.zeros((1, 5, 3)), "b": np.zeros((1, 2, 5))}, r"boxes must be \[1, m, 4\]"),
        ({"a": np.full((1, 6), np.nan)}, "boxes that are not finite"),
        ({"a": np.array([[7, 0.9, 0, 0, 1, 1]])}, "found class 7, but label_list has 2 names"),
    ],
)
def test_other_outputs_are_an_error(outputs, message):
    with pytest.raises(InputError, match=message):
        boxes(outputs)
