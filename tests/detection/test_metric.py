import json
import math
from pathlib import Path

import numpy as np
import paddle
import pytest

from paddle_sparse_cb import InputError
from paddle_sparse_cb.detection.metric import CocoMAP


@pytest.fixture
def annotations(tmp_path):
    """Two images with two boxes each, category ids 3 and 7."""
    images = [{"id": i, "file_name": f"{i}.png", "height": 100, "width": 100} for i in (1, 2)]
    boxes = [(1, 3, [10, 10, 40, 40]), (1, 7, [60, 60, 30, 30]), (2, 3, [5, 5, 50, 50]), (2, 7, [50, 20, 40, 40])]
    annotations = [
        {"id": n, "image_id": image, "category_id": category, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
        for n, (image, category, box) in enumerate(boxes, 1)
    ]
    categories = [{"id": 3, "name": "a"}, {"id": 7, "name": "b"}]
    path = tmp_path / "val.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return str(path)


def truth(image):
    """Returns the boxes of an image as a perfect network would."""
    rows = {
        1: [[0, 0.9, 10, 10, 50, 50], [1, 0.8, 60, 60, 90, 90]],
        2: [[0, 0.9, 5, 5, 55, 55], [1, 0.8, 50, 20, 90, 60]],
    }[image]
    return np.array([[*rows, [-1] * 6]], "float32"), np.array([[image]])


def test_perfect_boxes_score_100_percent(annotations):
    metric = CocoMAP(annotations, [1, 2])
    for image in (1, 2):
        metric.update(*truth(image))
    assert metric.accumulate() == [pytest.approx(1.0), pytest.approx(1.0)]


def test_detecting_half_of_the_objects_scores_about_50_percent(annotations):
    metric = CocoMAP(annotations, [1, 2])
    metric.update(*truth(1))
    boxes, image = truth(2)
    metric.update(np.full_like(boxes, -1), image)
    assert metric.accumulate()[0] == pytest.approx(0.5, abs=0.01)


def test_loose_boxes_lower_map_but_not_ap50(annotations):
    metric = CocoMAP(annotations, [1, 2])
    for image in (1, 2):
        boxes, ids = truth(image)
        boxes[:, :2, 2:4] += 6
        metric.update(boxes, ids)
    overall, at_half = metric.accumulate()
    assert at_half == pytest.approx(1.0)
    assert overall < 0.5


@pytest.mark.parametrize("change", [{"iscrowd": 1}, {"area": 2e10}, {"image_id": 9}, {"category_id": 9}])
def test_a_data_set_in_which_no_object_counts_is_refused_and_one_that_counts_is_enough(annotations, change):
    """Its mAP would be NaN, which no checkpoint can hold."""
    content = json.loads(Path(annotations).read_text())
    for annotation in content["annotations"][1:]:
        annotation.update(change)
    Path(annotations).write_text(json.dumps(content))
    CocoMAP(annotations, [1, 2])
    content["annotations"][0].update(change)
    Path(annotations).write_text(json.dumps(content))
    with pytest.raises(
        InputError, match=r"val.json: no object counts in an evaluation: mAP needs at least one in the 2 "
    ):
        CocoMAP(annotations, [1, 2])


def test_detecting_nothing_scores_zero(annotations):
    metric = CocoMAP(annotations, [1])
    metric.update(np.full((1, 3, 6), -1, "float32"), np.array([[1]]))
    assert metric.accumulate() == [0.0, 0.0]


def test_an_image_evaluated_by_two_ranks_counts_once(annotations):
    metric = CocoMAP(annotations, [1, 2])
    for image in (1, 1, 2):
        metric.update(*truth(image))
    assert metric.accumulate()[0] == pytest.approx(1.0)


def test_the_values_are_kept_until_the_next_evaluation_is_complete(annotations):
    metric = CocoMAP(annotations, [1, 2])
    assert all(math.isnan(value) for value in metric.accumulate())
    for image in (1, 2):
        metric.update(*truth(image))
    metric.reset()
    losses = [paddle.ones([1])] * 3
    metric.update(*metric.compute(*losses))
    boxes, ids = truth(1)
    metric.update(np.full_like(boxes, -1), ids)
    assert metric.accumulate()[0] == pytest.approx(1.0)


@pytest.mark.parametrize(
    "change",
    [
        {"area": None},
        {"area": "5"},
        {"iscrowd": None},
        {"bbox": [1, 2, 3]},
        {"bbox": [1, 2, 3, float("nan")]},
        {"bbox": [1, 2, 3, [4]]},
        {"bbox": None},
        {"id": "x"},
        {"area": 10**400},
    ],
)
def test_an_annotation_that_would_fail_the_first_evaluation_is_found_at_the_start(annotations, change):
    content = json.loads(Path(annotations).read_text())
    content["annotations"][1].update(change)
    Path(annotations).write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"val.json: annotation .* cannot be used"):
        CocoMAP(annotations, [1, 2])
