"""What is wrong with annotations is found at once, with counts and examples."""

import copy

import cv2
import numpy as np
import pytest
from PIL import Image

from paddle_sparse_cb.detection.datasets.problems import Problem, find_differences, find_problems

GOOD = {
    "images": [
        {"id": 1, "file_name": "1.png", "width": 80, "height": 60},
        {"id": 2, "file_name": "2.png", "width": 80, "height": 60},
    ],
    "annotations": [
        {"id": 5, "image_id": 1, "category_id": 1, "bbox": [8, 6, 24, 18], "area": 432, "iscrowd": 0},
        {"id": 6, "image_id": 2, "category_id": 3, "bbox": [8, 6, 24, 18], "area": 432, "iscrowd": 0},
    ],
    "categories": [{"id": 1, "name": "cat"}, {"id": 3, "name": "dog"}],
}


@pytest.fixture
def folder(tmp_path):
    for name in ("1.png", "2.png"):
        cv2.imwrite(str(tmp_path / name), np.full((60, 80, 3), 90, np.uint8))
    return tmp_path


def changed(**changes):
    """The good annotations with values replaced: `images_0_width=3` sets content["images"][0]["width"]."""
    content = copy.deepcopy(GOOD)
    for path, value in changes.items():
        key, index, field = path.split("_", 2)
        content[key][int(index)][field] = value
    return content


def test_good_annotations_have_no_problems(folder):
    assert find_problems(GOOD, folder) == []
    assert find_differences(GOOD, GOOD, [folder, folder / "other"]) == []


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ([], "error: the annotations must be a mapping, got list"),
        ({"images": {}, "annotations": [], "categories": []}, "error: 'images' must be a list, got dict"),
        (changed(images_0_file_name="no.png"), "error: 1 x images are not there: {folder}/no.png"),
        (changed(images_0_file_name="."), "error: 1 x images are not there: {folder} is no file"),
        (changed(images_0_file_name=7), "error: 1 x images must have an id and a file_name"),
        (changed(images_0_id="a"), "error: 1 x ids of images must be integers of at most 64 bits: 1.png: 'a'"),
        (changed(images_1_id=1), "error: 1 x images with the id of another one: 2.png: 1"),
        (changed(images_0_width=None), "error: 1 x images must have a width and a height: 1.png"),
        (
            changed(images_0_width=60, images_0_height=80),
            "warning: 1 x images have another size than in the annotations: 1.png: 80 x 60, annotated 60 x 80",
        ),
        (changed(images_1_file_name="1.png"), "warning: 1 x images that are listed more than once: 1.png"),
        (changed(annotations_0_image_id=9), "error: 1 x annotations of images that are not listed: annotation 5"),
        (changed(annotations_0_category_id=9), "error: 1 x annotations with a category that is not listed"),
        (changed(annotations_1_id=5), "error: 1 x annotations with the id of another one: annotation 5"),
        (changed(annotations_0_image_id=[]), "error: 1 x ids must be numbers"),
        (changed(annotations_0_bbox=[1, 2, 3]), "error: 1 x annotations without a bbox of four numbers: annotation 5"),
        (changed(annotations_0_bbox=[0, 0, float("nan"), 1]), "error: 1 x annotations without a bbox of four numbers"),
        (changed(annotations_0_bbox=[0, 0, 10**400, 1]), "error: 1 x annotations without a bbox of four numbers"),
        (changed(annotations_0_area=None), "error: 1 x annotations without a number as area, which are needed"),
        (
            changed(annotations_0_bbox=[8, 6, 0, 18]),
            "warning: 1 x boxes of less than a pixel, which are not trained on",
        ),
        (
            changed(annotations_0_bbox=[90, 6, 5, 5]),
            "warning: 1 x boxes outside of their image, which are not trained on",
        ),
        (changed(annotations_0_bbox=[70, 6, 24, 18]), "warning: 1 x boxes that exceed their image and are clipped"),
        (changed(categories_1_name="cat"), "error: 1 x categories with the id or the name of another one: 3 cat"),
        (changed(categories_1_id={}), "error: 1 x categories must have an id and a name"),
        (changed(annotations_1_image_id=1), "warning: 1 x images without a box, which are not trained on: id 2"),
        (changed(annotations_1_category_id=1), "warning: 1 x classes without a box: dog"),
    ],
)
def test_each_defect_is_named_with_its_place(content, expected, folder):
    problems = [str(problem) for problem in find_problems(content, folder)]
    assert any(problem.startswith(expected.format(folder=folder)) for problem in problems), problems


def test_all_defects_are_found_at_once_and_counted(folder):
    (folder / "2.png").write_bytes(b"no image")
    content = changed(images_0_width=7, annotations_0_bbox=[1, 2], annotations_1_area="x")
    content["annotations"] += [{**GOOD["annotations"][0], "id": number, "category_id": 8} for number in range(10, 16)]
    problems = find_problems(content, folder)
    found = {problem.text: problem for problem in problems}
    assert found["images cannot be used"].examples == (f"{folder / '2.png'}: not an image, or its header is damaged",)
    many = found["annotations with a category that is not listed"]
    assert (many.count, len(many.examples)) == (6, 3)
    assert str(many).startswith("error: 6 x annotations with a category that is not listed: annotation 10")
    assert str(many).endswith("; ...")
    assert len(problems) >= 5


def test_an_image_that_exif_turns_is_named(folder):
    image = Image.new("RGB", (80, 60))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(folder / "1.png", exif=exif)
    [problem] = find_problems(GOOD, folder)
    assert "turned by EXIF" in problem.text
    assert problem.examples == ("1.png: 60 x 80, annotated 80 x 60",)


def test_the_training_and_the_evaluation_are_compared(folder):
    val = changed(categories_1_name="bird")
    [problem] = find_differences(GOOD, val, [folder, folder / "val"])
    assert problem == Problem(
        "the classes of the evaluation differ from those of the training", True, 1, ("['cat', 'dog'], ['cat', 'bird']",)
    )
    shared, untrained = find_differences(changed(annotations_1_category_id=1), GOOD, [folder, folder])
    assert str(shared) == (
        "warning: 2 x images are in the training and in the evaluation, whose result they flatter: 1.png; 2.png"
    )
    assert str(untrained) == "warning: 1 x classes are evaluated but never trained: dog"
