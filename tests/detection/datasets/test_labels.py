import json

from paddle_sparse_cb.detection.datasets.labels import class_names
from paddle_sparse_cb.detection.metric import CocoMAP


def test_names_of_annotations_are_clean_wherever_they_are_read(tmp_path):
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [4, 5, 26, 35], "area": 910, "iscrowd": 0}
    truth = {"images": [], "annotations": [box], "categories": [{"id": 1, "name": "big\ncat\n"}]}
    (tmp_path / "boxes.json").write_text(json.dumps(truth))
    content = {"num_classes": 1, "EvalDataset": {"dataset_dir": str(tmp_path), "anno_path": "boxes.json"}}
    assert class_names(content) == ("big cat",)
    assert CocoMAP(truth, [1]).class_names == ["big cat"]


def test_a_list_of_names_has_one_in_each_line(tmp_path):
    (tmp_path / "names.txt").write_bytes("big\x1b cat \r\n\n人　物\u2028b\n".encode())
    content = {"num_classes": 2, "TestDataset": {"anno_path": str(tmp_path / "names.txt")}}
    assert class_names(content) == ("big cat", "人　物 b")
