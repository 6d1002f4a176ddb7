import json
import math
from pathlib import Path

import numpy as np
import pytest

from paddle_sparse_cb import InputError
from paddle_sparse_cb.detection.evaluation import ClassResult, Evaluation, rank_by_difference
from paddle_sparse_cb.detection.metric import CocoMAP

from .test_metric import annotations, truth  # noqa: F401

CLASSES = [ClassResult("a", 3, 0.5), ClassResult("<b>", 0, None)]


def evaluation(boxes):
    return Evaluation(0.4, math.nan, CLASSES, boxes)


def test_the_metric_keeps_ap_by_class_and_the_boxes_to_show(annotations):  # noqa: F811
    assert CocoMAP(annotations, [1, 2]).last is None
    metric = CocoMAP(annotations, [1, 2])
    for image in (1, 2):
        boxes, ids = truth(image)
        boxes[:, 1, :2] = [0, 0.1] if image == 1 else [1, 0.8]  # the second object of image 1 is missed
        metric.update(boxes, ids)
    last = metric.last
    assert [last.map, last.ap50] == metric.accumulate()
    assert [(one.name, one.objects) for one in last.classes] == [("a", 2), ("b", 2)]
    assert [one.ap for one in last.classes] == [pytest.approx(1.0), pytest.approx(0.5, abs=0.01)]
    assert np.mean([one.ap for one in last.classes]) == pytest.approx(last.map)
    assert last.boxes[1] == [(0, pytest.approx(0.9), 10, 10, 50, 50)]  # the wrong one has a score of 0.1
    assert [box[0] for box in last.boxes[2]] == [0, 1]


def test_a_class_without_objects_has_no_ap_and_finding_nothing_is_zero(annotations):  # noqa: F811
    content = json.loads(Path(annotations).read_text())
    content["categories"].append({"id": 9, "name": "c"})
    metric = CocoMAP(content, [1, 2])
    for image in (1, 2):
        boxes, ids = truth(image)
        metric.update(np.full_like(boxes, -1), ids)
    assert [one.ap for one in metric.last.classes] == [0.0, 0.0, None]
    assert metric.last.boxes == {1: [], 2: []}
    for image in (1, 2):
        metric.update(*truth(image))
    assert [one.ap for one in metric.last.classes] == [pytest.approx(1.0), pytest.approx(1.0), None]


def test_class_names_of_strangers_can_be_written(annotations):  # noqa: F811
    content = json.loads(Path(annotations).read_text())
    content["categories"] = [{"id": 3, "name": "a\ud800"}, {"id": 7, "name": {"x": 1}}]
    metric = CocoMAP(content, [1, 2])
    assert metric.class_names == ["a?", "{'x': 1}"]
    assert metric.class_objects == [2, 2]
    assert metric.annotated(1) == [(0, None, 10, 10, 50, 50), (1, None, 60, 60, 90, 90)]


def test_an_evaluation_reads_back(tmp_path):
    written = evaluation({7: [(1, 0.5, 1.0, 2.0, 3.25, 4.0)], 8: []})
    written.save(tmp_path / "evaluation.json")
    read = Evaluation.load(tmp_path / "evaluation.json")
    assert read.map == 0.4
    assert math.isnan(read.ap50)
    assert read.classes == CLASSES
    assert read.boxes == {7: [(1, 0.5, 1.0, 2.0, 3.2, 4.0)], 8: []}


@pytest.mark.parametrize(
    "change",
    [
        {"classes": None},
        {"boxes": {"7": [[2, 0.5, 1, 2, 3, 4]]}},
        {"boxes": {"7": [[-1, 0.5, 1, 2, 3, 4]]}},
        {"boxes": {"7": [[0, 0.5, 1, 2, 3]]}},
        {"boxes": {"7": [[0, "x", 1, 2, 3, 4]]}},
        {"boxes": {"x": []}},
        {"mAP": "high"},
        {"mAP": 10**400},
    ],
)
def test_a_damaged_evaluation_is_an_input_error_that_names_the_file(tmp_path, change):
    path = tmp_path / "evaluation.json"
    evaluation({}).save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InputError, match=r"evaluation\.json: not a valid evaluation"):
        Evaluation.load(path)


def test_images_are_ranked_by_the_boxes_that_only_one_evaluation_has():
    box = (0, 0.9, 10.0, 10.0, 50.0, 50.0)
    moved, other_class, weaker = (0, 0.9, 12, 10, 52, 50), (1, *box[1:]), (0, 0.4, *box[2:])
    first = {1: [box], 2: [box], 3: [box], 4: [box, box], 5: [box], 6: [], 9: []}
    second = {1: [moved], 2: [other_class], 3: [weaker], 4: [], 5: [box, moved], 6: [], 8: []}
    assert rank_by_difference(evaluation(first), evaluation(second)) == [4, 2, 5, 3, 1, 6]
