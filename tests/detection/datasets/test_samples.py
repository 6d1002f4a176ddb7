import json

import pytest

from paddle_sparse_cb import InputError
from paddle_sparse_cb.detection.datasets import samples


def load(split):
    return json.loads((samples.resolve("trees_256") / f"{split}.json").read_text())


def photographs(coco):
    return {image["file_name"].rsplit("_", 2)[0] for image in coco["images"]}


def test_the_splits_share_no_photograph():
    train, val = load("train"), load("val")
    assert photographs(train) == set(samples.SPLITS["train"])
    assert photographs(val) == set(samples.SPLITS["val"])
    assert not photographs(train) & photographs(val)


def test_nearly_all_trees_are_included_and_none_twice():
    boxes = sum(len(load(split)["annotations"]) for split in ("train", "val"))
    assert 930 <= boxes <= 951  # the photographs have 951; some lie across the corner of four tiles


def test_boxes_lie_within_their_tile():
    for split in ("train", "val"):
        coco = load(split)
        sizes = {image["id"]: (image["width"], image["height"]) for image in coco["images"]}
        assert set(sizes.values()) == {(256, 256)}
        for annotation in coco["annotations"]:
            x, y, width, height = annotation["bbox"]
            assert 0 <= x < x + width <= 256
            assert 0 <= y < y + height <= 256
        assert {annotation["image_id"] for annotation in coco["annotations"]} == sizes.keys()


def test_an_unknown_sample_is_an_error():
    with pytest.raises(InputError, match="sample:trees: no such sample; did you mean 'trees_256'"):
        samples.resolve("trees")
