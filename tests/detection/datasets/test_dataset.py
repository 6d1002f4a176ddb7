import json

import pytest

from paddle_sparse_cb import InputError
from paddle_sparse_cb.detection import config
from paddle_sparse_cb.detection.datasets.dataset import build_dataset, content_digest
from paddle_sparse_cb.detection.datasets.samples import resolve


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dataset_dir": "/nowhere"}, "EvalDataset: no annotations at /nowhere/val.json"),
        ({"image_dir": "pictures"}, "EvalDataset: no image folder at"),
        ({"anno_path": "none.json"}, "EvalDataset: no annotations at"),
    ],
)
def test_a_missing_path_is_named(registry, settings, message):
    registry["EvalDataset"].update(settings)
    with pytest.raises(InputError) as error:
        build_dataset(registry, "Eval")
    assert message in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"images": 3}',
        '{"images": [{"id": 1}], "annotations": []}',
    ],
)
def test_invalid_annotations_are_an_error_of_one_line_that_names_them(registry, text, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "val.json").write_text(text)
    registry["EvalDataset"]["dataset_dir"] = str(tmp_path)
    with pytest.raises(InputError, match="val.json") as error:
        build_dataset(registry, "Eval")
    assert "\n" not in str(error.value)


def test_the_number_of_categories_must_be_num_classes(registry, tmp_path):
    coco = json.loads((resolve("trees_256") / "val.json").read_text())
    coco["categories"].append({"id": 2, "name": "bush"})
    (tmp_path / "val.json").write_text(json.dumps(coco))
    registry["EvalDataset"]["anno_path"] = str(tmp_path / "val.json")
    with pytest.raises(InputError, match="num_classes is 1, but .*val.json has 2 categories"):
        build_dataset(registry, "Eval")
    registry["num_classes"] = 80
    with pytest.raises(InputError, match="num_classes is 80, but .*val.json has 2 categories"):
        build_dataset(registry, "Eval")


def changed(registry, folder, change):
    """Returns the registry with changed evaluation annotations."""
    trees = resolve("trees_256")
    coco = json.loads((trees / "val.json").read_text())
    change(coco)
    (folder / "val.json").write_text(json.dumps(coco))
    registry["EvalDataset"].update(
        dataset_dir=str(trees), anno_path=str(folder / "val.json"), data_fields=["image", "gt_bbox", "gt_class"]
    )
    return registry


def renumbered(number):
    def change(coco):
        coco["images"][0]["id"] = coco["annotations"][0]["image_id"] = number

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda coco: coco["images"][0].update(file_name="/dev/zero"),
            "names the image /dev/zero, which is not a file",
        ),
        (lambda coco: coco["images"][0].update(file_name=""), "names the image .*, which is not a file"),
        (lambda coco: coco.pop("annotations"), "has no 'annotations'"),
        (
            lambda coco: coco["annotations"][0].update(bbox=[0, 0, 1e39, 1e39]),
            "the boxes of .* must be finite, got .*inf",
        ),
        (lambda coco: coco["annotations"][0].update(bbox=[0, 0, 10**400, 5]), "OverflowError"),
        (lambda coco: coco["images"][0].update(width=10**400), "OverflowError"),
        (renumbered(10**30), "the id of .* must be an integer of at most 64 bits, got 1000"),
        (
            lambda coco: coco.update(categories=coco["categories"] * 2),
            "entry 1 is listed again; classes must be unique",
        ),
        (renumbered(0.5), "the id of .* must be an integer of at most 64 bits, got 0.5"),
    ],
)
@pytest.mark.timeout(180)
def test_unusable_annotations_are_found_before_the_training(registry, tmp_path, change, message):
    with pytest.raises(InputError, match=f"EvalDataset: .*val.json.*{message}"):
        build_dataset(changed(registry, tmp_path, change), "Eval")


def test_the_digest_changes_with_a_box_or_an_image_and_not_with_the_folder(registry, tmp_path):
    def digest(folder, change=lambda coco: None, more=b""):
        (tmp_path / folder / "images").mkdir(parents=True)
        for image in (resolve("trees_256") / "images").iterdir():
            (tmp_path / folder / "images" / image.name).write_bytes(image.read_bytes() + more)
        changed(registry, tmp_path / folder, change)
        registry["EvalDataset"]["dataset_dir"] = str(tmp_path / folder)
        return content_digest(build_dataset(registry, "Eval"))

    def move_a_box(coco):
        coco["annotations"][0]["bbox"][0] += 1

    digests = [digest("a"), digest("b"), digest("c", move_a_box), digest("d", more=b"0")]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_a_data_set_in_another_format_is_an_error(registry):
    registry["EvalDataset"] = config.parse_yaml("!ImageFolder {anno_path: a.json}")
    with pytest.raises(InputError, match="EvalDataset: ImageFolder has no annotations"):
        build_dataset(registry, "Eval")
