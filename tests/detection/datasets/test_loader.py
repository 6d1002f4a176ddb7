"""The content of a batch depends on the seed, the epoch and the position in it alone."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from paddle_sparse_cb import InputError
from paddle_sparse_cb.detection.datasets.loader import build_loader
from paddle_sparse_cb.detection.datasets.samples import resolve
from paddle_sparse_cb.detection.network import EVAL_FIELDS, TRAIN_FIELDS


def batches(registry, epoch=0, first=0, **settings):
    registry.update(settings)
    loader = build_loader(registry, "Train")
    loader.set_epoch(epoch, first)
    return [[tensor.numpy() for tensor in batch] for batch in loader]


def same(one, other):
    return len(one) == len(other) and all(np.array_equal(a, b) for x, y in zip(one, other) for a, b in zip(x, y))


@pytest.fixture
def few(registry):
    registry["TrainDataset"]["sample_num"] = 24
    return registry


def test_a_batch_does_not_depend_on_what_was_loaded_before(few):
    whole = batches(few, epoch=3)
    assert len(whole) == 3
    np.random.seed(99)
    assert same(batches(few, epoch=3), whole)
    assert same(batches(few, epoch=3, first=2), whole[2:])
    assert batches(few, epoch=3, first=3) == []


def test_a_batch_does_not_depend_on_the_number_of_workers(few):
    assert same(batches(few, worker_num=2), batches(few, worker_num=0))


def test_epochs_and_seeds_differ_in_order_and_augmentation(few):
    made = [batches(few), batches(few, epoch=1), batches(few, seed=1)]
    orders = [[int(image) for batch in epoch for image in batch[2].ravel()] for epoch in made]
    assert all(sorted(order) == sorted(orders[0]) for order in orders)
    assert len({tuple(order) for order in orders}) == 3
    flips = [
        {
            int(image): picture.mean(axis=(0, 1)).argmax()
            for batch in epoch
            for image, picture in zip(batch[2].ravel(), batch[0])
        }
        for epoch in made
    ]
    assert any(flips[0][image] != flips[1][image] for image in flips[0])


def test_mixup_ends_at_its_epoch(few):
    few["TrainDataset"]["allow_empty"] = False
    loader = build_loader(few, "Train")
    loader.dataset.source.mixup_epoch = 1
    seen = []
    loader.dataset.source.set_transform(lambda sample: seen.append(type(sample)) or sample)
    for epoch in (0, 1):
        loader.set_epoch(epoch)
        loader.dataset[0]
    assert seen == [list, dict]


def test_a_training_batch_has_the_train_fields_with_padded_boxes(registry):
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


def test_a_batch_size_above_the_number_of_images_is_an_error(registry):
    registry["TrainReader"]["batch_size"] = 100
    with pytest.raises(InputError, match="batch_size is 100, more than the 82 images"):
        build_loader(registry, "Train")


@pytest.fixture
def damaged(registry, tmp_path):
    """Truncates the second training image in the registry and returns its path."""
    trees = resolve("trees_256")
    coco = json.loads((trees / "train.json").read_text())
    (tmp_path / "images").mkdir()
    for n, image in enumerate(coco["images"]):
        content = (trees / "images" / image["file_name"]).read_bytes()
        (tmp_path / "images" / image["file_name"]).write_bytes(content[:2000] if n == 1 else content)
    (tmp_path / "train.json").write_text(json.dumps(coco))
    registry["TrainDataset"]["dataset_dir"] = str(tmp_path)
    return tmp_path / "images" / coco["images"][1]["file_name"]


@pytest.mark.timeout(180)
@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_image_ends_the_epoch_with_its_name(registry, damaged, workers):
    registry["worker_num"] = workers
    with pytest.raises(InputError) as error:
        list(build_loader(registry, "Train"))
    assert str(error.value).startswith(f"{damaged}: cannot be used: ")
    assert "\n" not in str(error.value)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_that_cannot_be_collated_ends_the_epoch(registry, workers):
    registry["worker_num"] = workers
    registry["TrainReader"]["sample_transforms"] = [{"Decode": {}}, {"RandomCrop": {}}]  # each its own size
    registry["TrainReader"]["batch_transforms"] = [{"Permute": {}}, {"PadGT": {}}]
    with pytest.raises(InputError, match="a batch of the images .*: cannot be used: ValueError: all input arrays must"):
        list(build_loader(registry, "Train"))


@pytest.mark.timeout(180)
def test_records_without_an_image_end_the_epoch(registry):
    registry["TrainDataset"]["data_fields"] = ["gt_bbox", "gt_class"]
    with pytest.raises(InputError, match="a record without image: cannot be used: "):
        list(build_loader(registry, "Train"))


@pytest.mark.timeout(180)
def test_a_truncated_jpeg_ends_the_epoch_with_its_name_instead_of_being_trained_on_in_grey(registry, damaged):
    annotations = Path(registry["TrainDataset"]["dataset_dir"], "train.json")
    whole = cv2.imencode(".jpg", np.random.randint(0, 256, (256, 256, 3), np.uint8))[1].tobytes()
    cut = damaged.with_name("cut.jpg")
    cut.write_bytes(whole[: len(whole) // 2])
    assert cv2.imread(str(cut)) is not None  # what OpenCV makes of it
    annotations.write_text(annotations.read_text().replace(damaged.name, cut.name))
    with pytest.raises(InputError, match=r"cut.jpg: cannot be used: ValueError: truncated JPEG"):
        list(build_loader(registry, "Train"))
