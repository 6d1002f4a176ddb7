"""What a batch holds follows from seed, epoch and place alone."""

import numpy as np
import pytest

from paddle_sparse_cb.detection.datasets.build import build_loader


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


def test_what_was_made_before_makes_no_difference(few):
    whole = batches(few, epoch=3)
    assert len(whole) == 3
    np.random.seed(99)
    assert same(batches(few, epoch=3), whole)
    assert same(batches(few, epoch=3, first=2), whole[2:])
    assert batches(few, epoch=3, first=3) == []


def test_worker_processes_make_no_difference(few):
    assert same(batches(few, worker_num=2), batches(few, worker_num=0))


def test_epochs_and_seeds_differ_in_order_and_augmentation(few):
    made = [batches(few), batches(few, epoch=1), batches(few, seed=1)]
    orders = [[int(image) for batch in epoch for image in batch[2].ravel()] for epoch in made]
    assert all(sorted(order) == sorted(orders[0]) for order in orders)
    assert len({tuple(order) for order in orders}) == 3
    flips = [{int(image): picture.mean(axis=(0, 1)).argmax() for batch in epoch
              for image, picture in zip(batch[2].ravel(), batch[0])} for epoch in made]
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
