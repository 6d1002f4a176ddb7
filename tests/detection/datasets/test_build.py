import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from paddle_sparse_cb import InputError
from paddle_sparse_cb.detection import config
from paddle_sparse_cb.detection.datasets.build import build_loader
from paddle_sparse_cb.detection.datasets.samples import resolve
from paddle_sparse_cb.detection.network import EVAL_FIELDS, TRAIN_FIELDS


def test_a_training_batch_is_an_ordered_list_with_padded_boxes(registry):
    images, _, ids, boxes, classes, mask = next(iter(build_loader(registry, "Train")))
    assert len(TRAIN_FIELDS) == 6
    size = images.shape[-1]
    assert images.shape == [8, 3, size, size]
    assert size in (224, 256, 288)
    assert boxes.shape == [8, mask.shape[1], 4]
    assert classes.numpy().dtype == ids.numpy().dtype == np.int64
    assert (mask.sum(axis=[1, 2]) >= 1).all()
    assert float(boxes.max()) <= size


def test_sizes_vary_from_batch_to_batch(registry):
    sizes = {batch[0].shape[-1] for batch in build_loader(registry, "Train")}
    assert len(sizes) > 1


def test_evaluation_covers_every_image_once(registry):
    loader = build_loader(registry, "Eval")
    batches = list(loader)
    assert all(len(batch) == len(EVAL_FIELDS) for batch in batches)
    ids = np.concatenate([batch[2].numpy().ravel() for batch in batches])
    assert sorted(ids) == list(range(1, len(loader.dataset) + 1))


@pytest.mark.parametrize(("settings", "said"), [
    ({"dataset_dir": "/nowhere"}, "EvalDataset: no annotations at /nowhere/val.json"),
    ({"image_dir": "pictures"}, "EvalDataset: no image folder at"),
    ({"anno_path": "none.json"}, "EvalDataset: no annotations at"),
])
def test_a_path_that_is_not_there_is_named(registry, settings, said):
    registry["EvalDataset"].update(settings)
    with pytest.raises(InputError) as error:
        build_loader(registry, "Eval")
    assert said in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"images": 3}', '{"images": [{"id": 1}], "annotations": []}'])
def test_damaged_annotations_are_one_line_that_names_them(registry, text, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "val.json").write_text(text)
    registry["EvalDataset"]["dataset_dir"] = str(tmp_path)
    with pytest.raises(InputError, match="val.json") as error:
        build_loader(registry, "Eval")
    assert "\n" not in str(error.value)


def test_other_categories_than_classes_are_an_error(registry, tmp_path):
    coco = json.loads((resolve("trees_256") / "val.json").read_text())
    coco["categories"].append({"id": 2, "name": "bush"})
    (tmp_path / "val.json").write_text(json.dumps(coco))
    registry["EvalDataset"]["anno_path"] = str(tmp_path / "val.json")
    with pytest.raises(InputError, match="num_classes is 1, but .*val.json has 2 categories"):
        build_loader(registry, "Eval")
    registry["num_classes"] = 80
    with pytest.raises(InputError, match="num_classes is 80, but .*val.json has 2 categories"):
        build_loader(registry, "Eval")


def test_a_batch_larger_than_the_data_is_an_error(registry):
    registry["TrainReader"]["batch_size"] = 100
    with pytest.raises(InputError, match="batch_size is 100, more than the 82 images"):
        build_loader(registry, "Train")


@pytest.fixture
def damaged(registry, tmp_path):
    """The registry with training tiles of which the second is cut short; the path of that one."""
    trees = resolve("trees_256")
    coco = json.loads((trees / "train.json").read_text())
    (tmp_path / "images").mkdir()
    for n, image in enumerate(coco["images"]):
        content = (trees / "images" / image["file_name"]).read_bytes()
        (tmp_path / "images" / image["file_name"]).write_bytes(content[:2000] if n == 1 else content)
    (tmp_path / "train.json").write_text(json.dumps(coco))
    registry["TrainDataset"]["dataset_dir"] = str(tmp_path)
    return tmp_path / "images" / coco["images"][1]["file_name"]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_cannot_be_read_ends_the_epoch_with_its_name(registry, damaged, workers):
    registry["worker_num"] = workers
    with pytest.raises(InputError) as error:
        list(build_loader(registry, "Train"))
    assert str(error.value).startswith(f"{damaged}: cannot be used: ")
    assert "\n" not in str(error.value)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_that_cannot_be_made_ends_the_epoch(registry, workers):
    registry["worker_num"] = workers
    registry["TrainReader"]["sample_transforms"] = [{"Decode": {}}, {"RandomCrop": {}}]  # each its own size
    registry["TrainReader"]["batch_transforms"] = [{"Permute": {}}, {"PadGT": {}}]
    with pytest.raises(InputError, match="a batch of the images .*: cannot be used: ValueError: all input arrays must"):
        list(build_loader(registry, "Train"))


@pytest.mark.timeout(60)
def test_records_without_their_image_end_the_epoch(registry):
    registry["TrainDataset"]["data_fields"] = ["gt_bbox", "gt_class"]
    with pytest.raises(InputError, match="a record without image: cannot be used: "):
        list(build_loader(registry, "Train"))


@pytest.mark.timeout(60)
def test_a_jpeg_that_is_cut_short_ends_the_epoch_with_its_name_and_is_not_trained_on_in_grey(registry, damaged):
    annotations = Path(registry["TrainDataset"]["dataset_dir"], "train.json")
    whole = cv2.imencode(".jpg", np.random.randint(0, 256, (256, 256, 3), np.uint8))[1].tobytes()
    cut = damaged.with_name("cut.jpg")
    cut.write_bytes(whole[:len(whole) // 2])
    assert cv2.imread(str(cut)) is not None  # what OpenCV makes of it
    annotations.write_text(annotations.read_text().replace(damaged.name, cut.name))
    with pytest.raises(InputError, match=r"cut.jpg: cannot be used: ValueError: the JPEG is cut short"):
        list(build_loader(registry, "Train"))


def changed(registry, folder, change):
    """The registry with evaluation annotations in which something is another."""
    trees = resolve("trees_256")
    coco = json.loads((trees / "val.json").read_text())
    change(coco)
    (folder / "val.json").write_text(json.dumps(coco))
    registry["EvalDataset"].update(dataset_dir=str(trees), anno_path=str(folder / "val.json"),
                                   data_fields=["image", "gt_bbox", "gt_class"])
    return registry


def renumbered(number):
    def change(coco):
        coco["images"][0]["id"] = coco["annotations"][0]["image_id"] = number
    return change


@pytest.mark.parametrize(("change", "said"), [
    (lambda coco: coco["images"][0].update(file_name="/dev/zero"), "names the image /dev/zero, which is no file"),
    (lambda coco: coco["images"][0].update(file_name=""), "names the image .*, which is no file"),
    (lambda coco: coco.pop("annotations"), "has no 'annotations'"),
    (lambda coco: coco["annotations"][0].update(bbox=[0, 0, 1e39, 1e39]), "a box of .* is no box: .*inf"),
    (lambda coco: coco["annotations"][0].update(bbox=[0, 0, 10**400, 5]), "OverflowError"),
    (lambda coco: coco["images"][0].update(width=10**400), "OverflowError"),
    (renumbered(10**30), "the id of .* is a whole number of at most 64 bits, got 1000"),
    (renumbered(0.5), "the id of .* is a whole number of at most 64 bits, got 0.5"),
])
@pytest.mark.timeout(60)
def test_annotations_that_would_be_found_out_late_are_found_at_once(registry, tmp_path, change, said):
    with pytest.raises(InputError, match=f"EvalDataset: .*val.json.*{said}"):
        build_loader(changed(registry, tmp_path, change), "Eval")


def test_a_data_set_of_another_kind_is_an_error(registry):
    registry["EvalDataset"] = config.parse_yaml("!ImageFolder {anno_path: a.json}")
    with pytest.raises(InputError, match="EvalDataset is a COCODataSet or a VOCDataSet, got ImageFolder"):
        build_loader(registry, "Eval")
