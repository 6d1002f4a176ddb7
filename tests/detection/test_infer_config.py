"""`infer_cfg.yml` as PaddleDetection's deploy tools read it."""

import json

import pytest
import yaml
from helpers import RECIPES

from paddle_sparse_cb import InputError
from paddle_sparse_cb.detection import config
from paddle_sparse_cb.detection.datasets import samples
from paddle_sparse_cb.detection.datasets.labels import class_names
from paddle_sparse_cb.detection.infer_config import NAME, InferConfig, make_infer_config, read_infer_config


def read(name, **changes):
    content = config.read_with_bases(RECIPES / f"{name}.yml")
    return config.merge(changes, content)


def test_the_file_of_a_recipe_is_the_one_that_paddledetection_exports_for_the_same_network(tmp_path):
    content = read("picodet_s_416_coco_lcnet")
    theirs = samples.resolve("picodet_s_416_lcnet").with_name(NAME)  # written by PaddleDetection's export_model.py
    make_infer_config(content, class_names(content), (416, 416)).write(tmp_path / NAME)
    ours = yaml.safe_load((tmp_path / NAME).read_text())
    expected = yaml.safe_load(theirs.read_text())
    for nms in (ours["NMS"], expected["NMS"]):  # PaddleDetection raises these for speed, and not in the program
        del nms["score_threshold"], nms["nms_threshold"]
    assert ours == expected


def test_what_is_written_is_read_again(tmp_path):
    written = InferConfig(
        ({"type": "Resize", "target_size": [32, 64], "keep_ratio": False, "interp": 2}, {"type": "Permute"}),
        ("tree", "größe", "树"),
        0.3,
        {"name": "MultiClassNMS", "keep_top_k": 5},
        "PicoDet",
        (8, 16),
        "VOC",
    )
    written.write(tmp_path / NAME)
    assert read_infer_config(tmp_path / NAME) == written


def test_transforms_come_from_the_test_reader_if_it_has_any():
    content = read(
        "picodet_s_416_trees",
        TestReader={"sample_transforms": [{"Decode": None}, {"Resize": {"target_size": 7, "keep_ratio": False}}]},
    )
    assert make_infer_config(content, ["tree"], (256, 320)).preprocess == (
        {"type": "Resize", "target_size": [256, 320], "keep_ratio": False, "interp": 1},
    )


def test_a_reader_without_a_resize_gets_one_because_images_of_users_have_other_sizes():
    content = read("picodet_s_garments")
    resize, *others = make_infer_config(content, ["bag"] * 10, (96, 96)).preprocess
    assert resize == {"type": "Resize", "keep_ratio": False, "interp": 1, "target_size": [96, 96]}
    assert [other["type"] for other in others] == ["NormalizeImage", "Permute"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "must be a mapping, got list"),
        ("label_list: [a]", "Preprocess must be a list of transforms, got None"),
        ("Preprocess: [{type: Permute}]", "label_list must be a list of class names, got None"),
        (r'{Preprocess: [], label_list: ["a\u2028b"]}', "label_list must have no control characters"),
        (r'{Preprocess: [], label_list: ["\e[2J"]}', "label_list must have no control characters"),
        ("{Preprocess: [], label_list: [a], draw_threshold: 7}", "draw_threshold must be a number from 0 to 1, got 7"),
        ("{Preprocess: [], label_list: [a], NMS: [1]}", r"NMS must be a mapping, got \[1\]"),
        ("a: !!python/object/apply:os.system [ls]", "not valid YAML"),
        ("a: &a [*a]", "more than 100,000 values"),
    ],
)
def test_an_unusable_file_is_an_error_that_names_it(text, message, tmp_path):
    (tmp_path / NAME).write_text(text)
    with pytest.raises(InputError, match=f"{NAME}: .*{message}"):
        read_infer_config(tmp_path / NAME)


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        ({"type": "DecodeCache", "cache_root": "/tmp"}, "unknown type 'DecodeCache'"),
        ({"type": "resize"}, "unknown type 'resize'; did you mean 'Resize'"),
        ({}, "unknown type None"),
        ({"type": "Resize", "target_size": [1 << 20, 1 << 20], "keep_ratio": False}, "target_size must be height and"),
        ({"type": "Resize", "target_size": [0, 4], "keep_ratio": False}, "target_size must be height and"),
        ({"type": "Resize", "height": 4}, "Resize: .*unexpected keyword argument 'height'"),
        ({"type": "NormalizeImage", "mean": 1}, "NormalizeImage: "),
        ({"type": "NormalizeImage", "std": [0, 0, 0]}, "NormalizeImage: "),
    ],
)
def test_a_transform_that_cannot_be_used_or_writes_files_is_an_error(transform, message):
    with pytest.raises(InputError, match=f"Preprocess: {message}"):
        InferConfig((transform,), ("a",)).transforms()


def test_class_names_are_those_of_the_annotations_in_their_order(tmp_path):
    annotations = '{"categories": [{"id": 9, "name": "crane"}, {"id": 3, "name": 5}]}'
    (tmp_path / "val.json").write_text(annotations)
    block = {"name": "COCODataSet", "dataset_dir": str(tmp_path), "anno_path": "val.json"}
    content = {"num_classes": 2, "EvalDataset": block}
    assert class_names(content) == ("crane", "5")
    with pytest.raises(InputError, match=r"num_classes is 3, but .*val.json has 2 categories"):
        class_names({**content, "num_classes": 3})
    (tmp_path / "val.json").write_text("{}")
    with pytest.raises(InputError, match=r"val.json: has no class names: KeyError"):
        class_names(content)


def test_class_names_of_voc_are_those_of_the_label_list(tmp_path):
    (tmp_path / "labels.txt").write_text("cat\ndog\n\n")
    block = {"name": "VOCDataSet", "dataset_dir": str(tmp_path), "anno_path": "test.txt", "label_list": "labels.txt"}
    assert class_names({"num_classes": 2, "EvalDataset": block}) == ("cat", "dog")


def test_without_annotations_the_test_dataset_or_the_standard_classes_give_the_names(tmp_path):
    content = read("picodet_s_416_coco_lcnet")
    assert class_names(content)[:2] == ("person", "bicycle")
    assert class_names(read("picodet_s_416_voc"))[:2] == ("aeroplane", "bicycle")
    (tmp_path / "names.txt").write_text("tree\n")
    content["num_classes"] = 1
    with pytest.raises(InputError, match="no class names: dataset/coco/.*json does not exist; TestDataset.anno_path"):
        class_names(content)
    assert class_names({**content, "TestDataset": {"anno_path": str(tmp_path / "names.txt")}}) == ("tree",)
    tagged = config.parse_yaml(f"!ImageFolder {{anno_path: {tmp_path}/names.txt}}")  # as in PaddleDetection's files
    assert class_names({**content, "TestDataset": tagged}) == ("tree",)


def test_names_in_any_script_are_read(tmp_path):
    names = ["نیم‌تنه", "人　物", "👩‍🚒"]  # joiners and a wide space are not printable for Python
    (tmp_path / "infer_cfg.yml").write_text(
        f"Preprocess: []\nlabel_list: {json.dumps(names, ensure_ascii=False)}\n", encoding="utf-8"
    )
    assert list(read_infer_config(tmp_path / "infer_cfg.yml").labels) == names
