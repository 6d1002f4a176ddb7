import json

import numpy as np
import pytest

from paddle_sparse_cb import InputError
from paddle_sparse_cb.detection.data import make_loader
from paddle_sparse_cb.detection.network import EVAL_FIELDS, TRAIN_FIELDS
from paddle_sparse_cb.detection.samples import resolve


def test_a_training_batch_is_an_ordered_list_with_padded_boxes(registry):
    images, _, ids, boxes, classes, mask = next(iter(make_loader(registry, "Train")))
    assert len(TRAIN_FIELDS) == 6
    size = images.shape[-1]
    assert images.shape == [8, 3, size, size]
    assert size in (224, 256, 288)
    assert boxes.shape == [8, mask.shape[1], 4]
    assert classes.numpy().dtype == ids.numpy().dtype == np.int64
    assert (mask.sum(axis=[1, 2]) >= 1).all()
    assert float(boxes.max()) <= size


def test_sizes_vary_from_batch_to_batch(registry):
    sizes = {batch[0].shape[-1] for batch in make_loader(registry, "Train")}
    assert len(sizes) > 1


def test_evaluation_covers_every_image_once(registry):
    loader = make_loader(registry, "Eval")
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
        make_loader(registry, "Eval")
    assert said in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"images": 3}', '{"images": [{"id": 1}], "annotations": []}'])
def test_damaged_annotations_are_one_line_that_names_them(registry, text, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "val.json").write_text(text)
    registry["EvalDataset"]["dataset_dir"] = str(tmp_path)
    with pytest.raises(InputError, match="val.json") as error:
        make_loader(registry, "Eval")
    assert "\n" not in str(error.value)


def test_other_categories_than_classes_are_an_error(registry, tmp_path):
    coco = json.loads((resolve("trees_256") / "val.json").read_text())
    coco["categories"].append({"id": 2, "name": "bush"})
    (tmp_path / "val.json").write_text(json.dumps(coco))
    registry["EvalDataset"]["anno_path"] = str(tmp_path / "val.json")
    with pytest.raises(InputError, match="num_classes is 1, but .*val.json has 2 categories"):
        make_loader(registry, "Eval")
    registry["num_classes"] = 80
    with pytest.raises(InputError, match="num_classes is 80, but .*val.json has 2 categories"):
        make_loader(registry, "Eval")


def test_a_batch_larger_than_the_data_is_an_error(registry):
    registry["TrainReader"]["batch_size"] = 100
    with pytest.raises(InputError, match="batch_size is 100, more than the 82 images"):
        make_loader(registry, "Train")


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
        list(make_loader(registry, "Train"))
    assert str(error.value).startswith(f"{damaged}: cannot be used: ")
    assert "\n" not in str(error.value)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_that_cannot_be_made_ends_the_epoch(registry, workers):
    registry["worker_num"] = workers
    registry["TrainReader"]["sample_transforms"] = [{"Decode": {}}, {"RandomCrop": {}}]  # each its own size
    registry["TrainReader"]["batch_transforms"] = [{"Permute": {}}, {"PadGT": {}}]
    with pytest.raises(InputError, match="a batch of the images .*: cannot be used: ValueError: all input arrays must"):
        list(make_loader(registry, "Train"))


@pytest.mark.timeout(60)
def test_records_without_their_image_end_the_epoch(registry):
    registry["TrainDataset"]["data_fields"] = ["gt_bbox", "gt_class"]
    with pytest.raises(InputError, match="a record without image: cannot be used: "):
        list(make_loader(registry, "Train"))
