"""Folders of annotated images in COCO's, Pascal VOC's and YOLO's formats."""

import json
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from PIL import Image

from paddle_sparse_cb import InputError
from paddle_sparse_cb.detection.datasets.folders import read_folder, split
from paddle_sparse_cb.detection.datasets.summary import summarize


def write_image(path, width=80, height=60):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((height, width, 3), 90, np.uint8))


def coco(names, boxes_per_image=1, classes=("cat", "dog")):
    return {
        "images": [{"id": n, "file_name": name, "width": 80, "height": 60} for n, name in enumerate(names, 1)],
        "annotations": [
            {
                "id": n * 10 + k,
                "image_id": n,
                "category_id": 1 + n % len(classes),
                "bbox": [8 * k, 6, 24, 18],
                "area": 432,
                "iscrowd": 0,
            }
            for n in range(1, len(names) + 1)
            for k in range(boxes_per_image)
        ],
        "categories": [{"id": n, "name": name} for n, name in enumerate(classes, 1)],
    }


def write_coco(path, names, **keywords):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(coco(names, **keywords)))


def write_voc(path, boxes, size=(80, 60)):
    path.parent.mkdir(parents=True, exist_ok=True)
    tree = ElementTree.Element("annotation")
    if size:
        for side, value in zip(("width", "height"), size):
            ElementTree.SubElement(
                ElementTree.SubElement(tree, "size") if tree.find("size") is None else tree.find("size"), side
            ).text = str(value)
    for label, difficult, *corners in boxes:
        found = ElementTree.SubElement(tree, "object")
        ElementTree.SubElement(found, "name").text = label
        ElementTree.SubElement(found, "difficult").text = str(difficult)
        box = ElementTree.SubElement(found, "bndbox")
        for corner, value in zip(("xmin", "ymin", "xmax", "ymax"), corners):
            ElementTree.SubElement(box, corner).text = str(value)
    ElementTree.ElementTree(tree).write(path)


def names(part):
    return sorted(image["file_name"] for image in part.content["images"])


def test_coco_files_are_found_where_cocos_own_folder_has_them(tmp_path):
    for part, name in (("train2017", "1.jpg"), ("train2017", "2.jpg"), ("val2017", "3.jpg")):
        write_image(tmp_path / part / name)
    write_coco(tmp_path / "annotations/instances_train2017.json", ["1.jpg", "2.jpg"])
    write_coco(tmp_path / "annotations/person_keypoints_train2017.json", ["1.jpg"])
    write_coco(tmp_path / "annotations/instances_val2017.json", ["3.jpg"])
    (tmp_path / "annotations/captions_train2017.json").write_text('{"images": [], "annotations": [{"caption": "x"}]}')
    (tmp_path / "annotations/other.json").write_text("no JSON")
    found = read_folder(tmp_path)
    assert (found.format, found.note) == ("COCO", "")
    assert found.train.file.name == "instances_train2017.json"
    assert found.train.images == tmp_path / "train2017"
    assert (names(found.train), names(found.val)) == (["1.jpg", "2.jpg"], ["3.jpg"])


def test_coco_files_beside_their_images_are_recognized_by_their_folders(tmp_path):
    for part in ("train", "valid", "test"):
        write_image(tmp_path / part / f"{part}.jpg")
        write_coco(tmp_path / part / "_annotations.coco.json", [f"{part}.jpg"])
    found = read_folder(tmp_path)
    assert (names(found.train), names(found.val)) == (["train.jpg"], ["valid.jpg"])
    assert found.val.images == tmp_path / "valid"


def test_one_file_is_divided_at_random_but_always_in_the_same_way(tmp_path):
    listed = [f"{number}.jpg" for number in range(20)]
    for name in listed:
        write_image(tmp_path / "images" / name)
    write_coco(tmp_path / "all.json", listed)
    found = read_folder(tmp_path)
    assert found.note == "4 of 20 images, drawn at random, are for the evaluation"
    assert sorted(names(found.train) + names(found.val)) == sorted(listed)
    assert names(found.val) == names(read_folder(tmp_path).val)
    assert found.train.file is None
    ids = {image["id"] for image in found.val.content["images"]}
    assert {annotation["image_id"] for annotation in found.val.content["annotations"]} == ids


def test_images_without_boxes_are_not_drawn_for_the_evaluation(tmp_path):
    content = coco(["a", "b", "c"])
    content["images"] += [{"id": 9, "file_name": "empty", "width": 8, "height": 8}]
    train, val = (sorted(image["id"] for image in half["images"]) for half in split(content))
    assert 9 in train
    assert len(val) == 1
    with pytest.raises(InputError, match="at least two images with boxes are needed, .* got 1"):
        split(coco(["a"]))


def test_vocs_lists_say_what_is_for_the_training(tmp_path):
    for number in range(4):
        write_image(
            tmp_path / "JPEGImages" / f"a b {number}.jpg" if number == 3 else tmp_path / f"JPEGImages/{number}.jpg"
        )
    write_voc(tmp_path / "Annotations/0.xml", [("dog", 0, 8, 6, 32, 24), ("cat", 1, 1, 1, 9, 9)])
    write_voc(tmp_path / "Annotations/1.xml", [("dog", 0, 8, 6, 32, 24)], size=None)
    write_voc(tmp_path / "Annotations/2.xml", [("dog", 0, 8, 6, 32, 24)])
    for name, lines in (("train", "0\n1"), ("val", "2"), ("trainval", "0\n1\n2"), ("test", "7")):
        (tmp_path / "ImageSets/Main").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"ImageSets/Main/{name}.txt").write_text(lines)
    found = read_folder(tmp_path)
    assert found.format == "Pascal VOC"
    assert names(found.train) == ["JPEGImages/0.jpg", "JPEGImages/1.jpg"]
    assert names(found.val) == ["JPEGImages/2.jpg"]
    assert found.train.classes == found.val.classes == ["cat", "dog"]  # also of the part that lacks one of them
    dog, cat, _ = found.train.content["annotations"]
    assert (dog["bbox"], dog["category_id"], dog["iscrowd"]) == ([8, 6, 24, 18], 2, 0)
    assert cat["iscrowd"] == 1
    assert found.train.content["images"][1]["width"] == 80  # from the image


def test_xml_files_beside_images_need_no_lists_and_the_label_list_gives_the_order(tmp_path):
    for part in ("train", "val"):
        write_image(tmp_path / part / "1.png")  # of the same name in both
        write_voc(tmp_path / part / "1.xml", [("cat" if part == "val" else "dog", 0, 8, 6, 32, 24)])
    (tmp_path / "label_list.txt").write_text("dog\ncat\n")
    found = read_folder(tmp_path)
    assert (names(found.train), names(found.val)) == (["train/1.png"], ["val/1.png"])
    assert found.train.classes == ["dog", "cat"]
    (tmp_path / "label_list.txt").write_text("dog\n")
    with pytest.raises(InputError, match=r"1.xml: cannot be used: class 'cat' is not one of dog"):
        read_folder(tmp_path)


@pytest.mark.parametrize("layout", ["images/{}", "{}/images"])
def test_yolos_folders_are_converted(layout, tmp_path):
    for part in ("train", "val"):
        write_image(tmp_path / layout.format(part) / "1.jpg")
        write_image(tmp_path / layout.format(part) / "empty.jpg")
        labels = tmp_path / layout.replace("images", "labels").format(part)
        labels.mkdir(parents=True, exist_ok=True)
        (labels / "1.txt").write_text("1 0.25 0.25 0.3 0.3\n0 0.5 0.5 1 1\n")
    (tmp_path / "data.yaml").write_text("train: x\nnames:\n  0: cat\n  1: dog\n")
    found = read_folder(tmp_path)
    assert found.format == "YOLO"
    assert names(found.train) == [layout.format("train") + "/1.jpg", layout.format("train") + "/empty.jpg"]
    assert found.val.classes == ["cat", "dog"]
    dog, cat = found.val.content["annotations"]
    assert (dog["bbox"], dog["category_id"]) == (pytest.approx([8, 6, 24, 18], abs=0.02), 2)
    assert cat["bbox"] == pytest.approx([0, 0, 80, 60], abs=0.02)


def test_yolos_boxes_fit_images_that_exif_turns(tmp_path):
    (tmp_path / "images").mkdir()
    image = Image.new("RGB", (80, 60))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "images/1.jpg", exif=exif)
    write_image(tmp_path / "images/2.jpg")
    (tmp_path / "labels").mkdir()
    for name in ("1.txt", "2.txt"):
        (tmp_path / "labels" / name).write_text("0 0.5 0.5 0.5 0.5\n")
    (tmp_path / "data.yaml").write_text("names: [cat]\n")
    found = read_folder(tmp_path)
    for part in (found.train, found.val):
        [record], [annotation] = part.content["images"], part.content["annotations"]
        size = (60, 80) if record["file_name"].endswith("1.jpg") else (80, 60)
        assert (record["width"], record["height"]) == size
        assert annotation["bbox"] == pytest.approx([size[0] / 4, size[1] / 4, size[0] / 2, size[1] / 2], abs=0.02)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no annotations found: neither a COCO file"),
        (
            {"a.json": '{"shapes": [], "imagePath": "a.jpg"}'},
            "labelme's format; convert them to COCO, Pascal VOC or YOLO",
        ),
        ({"train.json": json.dumps(coco(["gone.jpg"]))}, "train.json: none of its images is in .*, such as gone.jpg"),
        ({"val.json": json.dumps(coco(["a.jpg"]))}, "COCO annotations for val, but none for the training"),
        (
            {"train_1.json": json.dumps(coco(["a.jpg"])), "train_2.json": json.dumps(coco(["a.jpg"]))},
            "several annotation files for train: .*train_1.json, .*train_2.json; keep one",
        ),
        ({"labels/a.txt": "0 0 0 1 1", "images/a.jpg": None}, "there is no data.yaml with the class names"),
        ({"labels/a.txt": "0 x", "images/a.jpg": None, "data.yaml": "names: [a]"}, "not annotations in YOLO's format"),
        ({"labels/a.txt": "7 .5 .5 1 1", "images/a.jpg": None, "data.yaml": "names: [a]"}, "not annotations in YOLO's"),
        ({"labels/a.txt": "0 0 0 1 1", "images/a.jpg": None, "data.yaml": "x: 1"}, "not annotations in YOLO's format"),
        ({"a.xml": "<annotation>"}, "a.xml: not an annotation in Pascal VOC's format"),
        ({"a.xml": '<!DOCTYPE x [<!ENTITY e "e">]><a>&e;</a>'}, "a.xml: not an annotation in Pascal VOC's format"),
        (
            {"a.xml": "<a><object><name>x</name></object></a>"},
            "a.xml: cannot be used: could not convert string to float",
        ),
    ],
)
def test_what_cannot_be_used_is_an_error_of_one_line(files, message, tmp_path):
    write_image(tmp_path / "a.jpg")
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        if content is None:
            write_image(tmp_path / name)
        else:
            (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message) as error:
        read_folder(tmp_path)
    assert len(str(error.value).splitlines()) == 1


def test_a_summary_counts_images_boxes_and_sizes():
    content = coco(["a", "b", "c", "d"], boxes_per_image=2)
    content["images"].append({"id": 9, "file_name": "empty", "width": 8, "height": 8})
    content["annotations"][0]["iscrowd"] = 1
    content["categories"].append({"id": 7, "name": "bird"})
    summary = summarize(content)
    assert (summary.images, summary.empty, summary.width, summary.height) == (4, 1, 80, 60)
    assert summary.boxes == {"cat": 4, "dog": 3, "bird": 0}
    assert summary.small_share == pytest.approx(0.3)  # 24 of 80 and 18 of 60 pixels
    assert str(summary) == "4 images (1 more without boxes), 7 boxes: cat 4, dog 3, bird 0"
    with pytest.raises(InputError, match="no image has a box"):
        summarize({**content, "annotations": []})
