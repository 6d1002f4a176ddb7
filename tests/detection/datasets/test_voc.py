import json
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from helpers import RECIPES

from paddle_sparse_cb import InputError
from paddle_sparse_cb.detection import config
from paddle_sparse_cb.detection.datasets.dataset import build_dataset, ground_truth
from paddle_sparse_cb.detection.datasets.loader import build_loader
from paddle_sparse_cb.detection.metric import CocoMAP

# file name -> (class, difficult, x1, y1, x2, y2)
BOXES = {
    "one": [("cat", 0, 10, 10, 50, 50), ("dog", 0, 60, 60, 90, 90)],
    "two": [("dog", 0, 5, 5, 55, 55), ("dog", 1, 60, 5, 90, 35)],
}


@pytest.fixture
def voc(tmp_path):
    """Writes two images of 100 pixels with annotations in VOC's format that have the same id."""
    for name, boxes in BOXES.items():
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((100, 100, 3), 90, np.uint8))
        tree = ElementTree.Element("annotation")
        ElementTree.SubElement(tree, "id").text = "7"
        size = ElementTree.SubElement(tree, "size")
        for side in ("width", "height"):
            ElementTree.SubElement(size, side).text = "100"
        for label, difficult, *corners in boxes:
            found = ElementTree.SubElement(tree, "object")
            ElementTree.SubElement(found, "name").text = label
            ElementTree.SubElement(found, "difficult").text = str(difficult)
            box = ElementTree.SubElement(found, "bndbox")
            for corner, value in zip(("xmin", "ymin", "xmax", "ymax"), corners):
                ElementTree.SubElement(box, corner).text = str(value)
        ElementTree.ElementTree(tree).write(tmp_path / f"{name}.xml")
    lines = "".join(f"{name}.png {name}.xml\n" for name in BOXES)
    for file in ("trainval.txt", "test.txt"):
        (tmp_path / file).write_text(lines)
    (tmp_path / "label_list.txt").write_text("dog\ncat\n")
    return tmp_path


@pytest.fixture
def registry(voc):
    content = config.read_with_bases(RECIPES / "picodet_s_416_voc.yml")
    for split in ("Train", "Eval"):
        content[f"{split}Dataset"]["dataset_dir"] = str(voc)
        content[f"{split}Reader"]["batch_size"] = 2
    content.update(num_classes=2, worker_num=0)
    return config.load(content, "picodet_s_416_voc.yml")


def as_found(boxes):
    """Returns the boxes of an image as a perfect network would: class, score, corners."""
    rows = [[["dog", "cat"].index(label), 0.9, *corners] for label, difficult, *corners in boxes if not difficult]
    return np.array([[*rows, *[[-1] * 6] * (2 - len(rows))]], "float32")


def test_training_and_evaluation_batches_are_loaded(registry):
    images, _, _, boxes, classes, mask = next(iter(build_loader(registry, "Train")))
    assert images.shape[:2] == [2, 3]
    assert boxes.shape[1] == classes.shape[1] == mask.shape[1] >= 1
    images, _, ids = next(iter(build_loader(registry, "Eval")))
    assert images.shape == [2, 3, 416, 416]
    assert ids.numpy().ravel().tolist() == [0, 1]


def test_perfect_boxes_score_100_percent_even_without_the_difficult_objects(registry):
    metric = CocoMAP(ground_truth(build_dataset(registry, "Eval")), [0, 1])
    for number, boxes in enumerate(BOXES.values()):
        metric.update(as_found(boxes), np.array([[number]]))
    assert metric.accumulate() == [pytest.approx(1.0), pytest.approx(1.0)]


def test_a_data_set_of_difficult_objects_only_cannot_be_evaluated(registry, voc):
    for name in BOXES:
        file = voc / f"{name}.xml"
        file.write_text(file.read_text().replace("<difficult>0<", "<difficult>1<"))
    with pytest.raises(InputError, match="EvalDataset: no object counts in an evaluation: .* in the 2 images"):
        CocoMAP(ground_truth(build_dataset(registry, "Eval")), [0, 1])


def test_a_missed_object_that_is_not_difficult_lowers_the_score(registry):
    metric = CocoMAP(ground_truth(build_dataset(registry, "Eval")), [0, 1])
    metric.update(as_found(BOXES["one"]), np.array([[0]]))
    metric.update(np.full((1, 3, 6), -1, "float32"), np.array([[1]]))
    assert metric.accumulate()[1] == pytest.approx(0.75, abs=0.01)  # of two dogs one, and the cat


def test_the_ground_truth_equals_that_of_the_same_boxes_in_cocos_format(registry, tmp_path):
    truth = ground_truth(build_dataset(registry, "Eval"))
    (tmp_path / "coco.json").write_text(json.dumps(truth))
    figures = []
    for source in (truth, str(tmp_path / "coco.json")):
        metric = CocoMAP(source, [0, 1])
        for number, boxes in enumerate(BOXES.values()):
            metric.update(as_found(boxes) + np.array([0, 0, 3, 3, 3, 3], "float32"), np.array([[number]]))
        figures.append(metric.accumulate())
    assert figures[0] == figures[1]
    assert 0 < figures[0][0] < figures[0][1]


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("one.xml", "<annotation>", "/one.xml .line 1 of .*test.txt. with the classes of .*label_list.txt: ParseError"),
        ("two.xml", "<annotation/>", "/two.xml .line 2 of .*test.txt.*: AttributeError"),
        ("two.xml", "<annotation><size><width>9</width><height>1e9999999</height>", "/two.xml .line 2 of"),
        ("test.txt", "", "cannot use .*test.txt with .*: AssertionError not found any voc record"),
        ("test.txt", "one.png one.xml\none.png\n", "one.png .line 2 of .*test.txt"),
        ("label_list.txt", "dog\n", "/one.xml .* with the classes of .*label_list.txt: KeyError 'cat'"),
        ("one.xml", "<a>" * 200_000, "/one.xml .line 1 of .*test.txt.*: ParseError"),
        ("label_list.txt", "dog\ncat\ndog\n", "EvalDataset: .*label_list.txt: entry 1 is listed again"),
        ("label_list.txt", "dog\ncat\ncow\n", "num_classes is 2, but .*label_list.txt has 3 categories"),
    ],
)
def test_invalid_annotations_are_an_error_of_one_line_that_names_them(registry, voc, file, text, message):
    (voc / file).write_text(text)
    with pytest.raises(InputError, match=message) as error:
        build_loader(registry, "Eval")
    assert "\n" not in str(error.value)


def test_a_data_set_without_boxes_cannot_be_evaluated(registry):
    registry["EvalDataset"]["data_fields"] = ["image"]
    with pytest.raises(InputError, match="data_fields: evaluation needs 'gt_class'"):
        ground_truth(build_dataset(registry, "Eval"))


def test_an_annotation_with_an_entity_bomb_is_refused_in_one_line_that_names_it(registry, voc):
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))
    bomb = f'<!DOCTYPE annotation [<!ENTITY e0 "aaaaaaaaaa">{entities}]>'
    annotation = voc / "two.xml"
    annotation.write_text(bomb + annotation.read_text().replace("<id>7</id>", "<id>7</id><folder>&e9;</folder>"))
    with pytest.raises(InputError, match=r"/two.xml .line 2 of .*test.txt.*: EntitiesForbidden") as error:
        build_dataset(registry, "Eval")
    assert "\n" not in str(error.value)


def test_an_annotation_cannot_read_another_file(registry, voc):
    annotation = voc / "two.xml"
    annotation.write_text(
        f'<!DOCTYPE annotation [<!ENTITY file SYSTEM "file://{voc}/label_list.txt">]>'
        + annotation.read_text().replace("<id>7</id>", "<id>7</id><folder>&file;</folder>")
    )
    with pytest.raises(InputError, match=r"/two.xml .line 2 of .*test.txt.*: EntitiesForbidden"):
        build_dataset(registry, "Eval")
