import gzip
import json

import cv2
import numpy as np
import pytest

from paddle_sparse_cb.detection.datasets import garments, samples


@pytest.fixture(scope="module")
def composed():
    return samples.resolve("garments_96")


@pytest.mark.parametrize("split", garments.IMAGES)
def test_every_canvas_has_garments_and_boxes_lie_on_it(composed, split):
    coco = json.loads((composed / f"{split}.json").read_text())
    assert len(coco["images"]) == garments.IMAGES[split]
    assert {a["image_id"] for a in coco["annotations"]} == {image["id"] for image in coco["images"]}
    assert {a["category_id"] for a in coco["annotations"]} == set(range(1, 11))
    for x, y, width, height in (a["bbox"] for a in coco["annotations"]):
        assert 0 <= x < x + width <= garments.CANVAS
        assert 0 <= y < y + height <= garments.CANVAS
    sample = coco["images"][-1]
    assert cv2.imread(str(composed / "images" / sample["file_name"])).shape == (garments.CANVAS, garments.CANVAS, 3)


def test_a_box_is_the_tight_bounding_box_of_its_garment():
    garment = np.zeros((28, 28), np.uint8)
    garment[5:21, 8:16] = 255  # a bright bar, twice as high as wide
    without, _ = garments.draw(np.random.RandomState(3), [])
    canvas, ((x, y, width, height),) = garments.draw(np.random.RandomState(3), [garment])
    changed = (canvas != without).any(axis=2)
    rows, columns = changed.any(axis=1).nonzero()[0], changed.any(axis=0).nonzero()[0]
    assert (rows[0], rows[-1] + 1) == (y, y + height)
    assert (columns[0], columns[-1] + 1) == (x, x + width)
    assert height == 2 * width


def test_garments_overlap_little():
    random = np.random.RandomState(0)
    for _ in range(50):
        _, boxes = garments.draw(random, [np.full((28, 28), 200, np.uint8)] * 4)
        left, top, width, height = np.array([box for box in boxes if box]).T
        for i in range(len(left)):
            for j in range(i):
                wide = min(left[i] + width[i], left[j] + width[j]) - max(left[i], left[j])
                high = min(top[i] + height[i], top[j] + height[j]) - max(top[i], top[j])
                smaller = min(width[i] * height[i], width[j] * height[j])
                assert max(0, wide) * max(0, high) <= 0.2 * smaller


def test_composing_twice_gives_identical_files(tmp_path, monkeypatch):
    monkeypatch.setattr(garments, "IMAGES", {"train": 5, "val": 3})
    random = np.random.RandomState(1)
    for file in garments.FILES.values():
        pixels = random.randint(0, 256, (40, 28, 28), dtype=np.uint8)
        (tmp_path / f"{file}-images-idx3-ubyte.gz").write_bytes(gzip.compress(bytes(16) + pixels.tobytes()))
        (tmp_path / f"{file}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(bytes(8) + bytes(range(10)) * 4))
    for name in "ab":
        garments.compose(tmp_path, tmp_path / name)
    made = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.*"))
    assert len(made) == 5 + 3 + 2
    assert all((tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes() for path in made)
