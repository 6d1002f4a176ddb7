import json

import pytest

from paddle_sparse_cb.detection.datasets.labels import class_names, clean_name
from paddle_sparse_cb.detection.metric import CocoMAP


@pytest.mark.parametrize(
    ("name", "clean"),
    [("cat\n", "cat"), ("a\u2028b", "a b"), ("\x1b[2J", "[2J"), ("\ud800", "?"), ("人　物", "人　物"), (7, "7")],
)
def test_a_name_is_one_line_without_control_characters(name, clean):
    assert clean_name(name) == clean


def test_names_of_annotations_are_clean_wherever_they_are_read(tmp_path):
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [4, 5, 26, 35], "area": 910, "iscrowd": 0}
    truth = {"images": [], "annotations": [box], "categories": [{"id": 1, "name": "big\ncat\n"}]}
    (tmp_path / "boxes.json").write_text(json.dumps(truth))
    content = {"num_classes": 1, "EvalDataset": {"dataset_dir": str(tmp_path), "anno_path": "boxes.json"}}
    assert class_names(content) == ("big cat",)
    assert CocoMAP(truth, [1]).class_names == ["big cat"]
