import json

import cv2
import numpy as np
import pytest

from paddle_sparse_cb.detection.datasets import animals, samples
from paddle_sparse_cb.utils.packages import fetch_debian_package

LANDSCAPE = np.full((500, 700, 3), 120, np.uint8)


def cut_out(color=(40, 160, 220)):
    """A bar, twice as wide as high, on a transparent ground of another colour."""
    pixels = np.zeros((100, 180, 4), np.uint8)
    pixels[..., :3] = 255, 0, 255
    pixels[30:70, 50:130] = *color, 255
    return pixels


def test_no_landscape_is_in_both_splits_and_no_photograph_in_two_classes():
    photographs = [(folder, name) for folder, names in animals.ANIMALS.values() for name in names.split()]
    assert len(set(photographs)) == len(photographs)
    assert not set(animals.LANDSCAPES["train"]) & set(animals.LANDSCAPES["val"])


def test_a_box_is_the_tight_bounding_box_of_its_animal():
    for seed in range(10):
        canvas, ((x, y, width, height),) = animals.draw(np.random.RandomState(seed), LANDSCAPE, [cut_out()])
        drawn = canvas[..., 2].astype(int) - canvas[..., 0] > 60  # the ground and its shadow are grey
        rows, columns = drawn.any(axis=1).nonzero()[0], drawn.any(axis=0).nonzero()[0]
        assert (rows[0], rows[-1] + 1) == pytest.approx((y, y + height), abs=2)
        assert (columns[0], columns[-1] + 1) == pytest.approx((x, x + width), abs=2)


def test_the_colour_of_transparent_pixels_is_not_seen():
    canvas, _ = animals.draw(np.random.RandomState(0), LANDSCAPE, [cut_out()])
    magenta = (canvas[..., 0].astype(int) - canvas[..., 1] > 30) & (canvas[..., 2].astype(int) - canvas[..., 1] > 30)
    assert not magenta.any()


def test_an_animal_has_a_shadow_beside_it():
    canvas, ((x, y, width, height),) = animals.draw(np.random.RandomState(0), LANDSCAPE, [cut_out()])
    ground = canvas[(y + height + 60) % animals.CANVAS, 0, 0]
    assert canvas[y + height + 1, x + width // 2 : x + width].min() < 0.9 * ground


@pytest.mark.slow  # downloads two packages once
def test_the_packages_have_the_photographs_and_equal_files_are_composed_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(animals, "IMAGES", {"train": 6, "val": 4})
    stamps = fetch_debian_package(samples.STAMPS) / "usr/share/tuxpaint/stamps/animals"
    landscapes = fetch_debian_package(samples.LANDSCAPES) / "usr/share/backgrounds"
    for name in "ab":
        animals.compose(stamps, landscapes, tmp_path / name)
    made = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.*"))
    assert len(made) == 6 + 4 + 2
    assert all((tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes() for path in made)
    for split, count in animals.IMAGES.items():
        coco = json.loads((tmp_path / "a" / f"{split}.json").read_text())
        assert [category["name"] for category in coco["categories"]] == list(animals.CLASSES)
        assert {annotation["image_id"] for annotation in coco["annotations"]} == set(range(1, count + 1))
        for x, y, width, height in (annotation["bbox"] for annotation in coco["annotations"]):
            assert 0 <= x < x + width <= animals.CANVAS
            assert 0 <= y < y + height <= animals.CANVAS
        pixels = cv2.imread(str(tmp_path / "a" / "images" / coco["images"][0]["file_name"]))
        assert pixels.shape == (animals.CANVAS, animals.CANVAS, 3)
