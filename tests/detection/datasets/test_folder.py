"""A folder of photographs without annotations is training data for a distillation without labels."""

import shutil

import cv2
import numpy as np
import pytest
from helpers import RECIPES

from paddle_sparse_cb import InputError
from paddle_sparse_cb.detection import config
from paddle_sparse_cb.detection.datasets.loader import build_loader


@pytest.fixture
def folder(tmp_path):
    """Five images, one of them in a folder below, a text file, and links that lead back."""
    rng = np.random.default_rng(0)
    (tmp_path / "more").mkdir()
    for name in ("b.png", "a.jpg", "more/c.PNG", "d.jpeg", "e.bmp"):
        cv2.imwrite(str(tmp_path / name.lower()), rng.integers(0, 255, [40, 60, 3], dtype=np.uint8))
    (tmp_path / "more/c.png").rename(tmp_path / "more/c.PNG")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "back").symlink_to(tmp_path)
    (tmp_path / "broken.png").symlink_to(tmp_path / "missing.png")
    return tmp_path


def load(registry, folder, **keys):
    registry["TrainDataset"].clear()
    registry["TrainDataset"].update(name="ImageFolder", dataset_dir=str(folder.parent), image_dir=folder.name, **keys)
    registry["TrainReader"].update(batch_size=2, drop_last=False)
    registry["TrainReader"]["batch_transforms"][0]["BatchRandomResize"]["target_size"] = [64]
    return build_loader(registry, "Train", labels=False)


def test_all_images_below_the_folder_are_loaded_once(registry, folder):
    loader = load(registry, folder)
    assert [record["im_file"] for record in loader.dataset.source.roidbs] == sorted(
        str(folder / name) for name in ("a.jpg", "b.png", "d.jpeg", "e.bmp", "more/c.PNG")
    )
    loader.set_epoch(0)
    batches = list(loader)
    assert {len(batch) for batch in batches} == {3}
    assert sorted(int(one) for batch in batches for one in batch[2].flatten()) == list(range(5))
    assert batches[0][0].shape == [2, 3, 64, 64]


def test_transforms_that_move_boxes_take_images_without_them(registry, folder):
    loader = load(registry, folder)
    coco = config.read_with_bases(RECIPES / "picodet_s_320_coco.yml")["TrainReader"]
    expand = config.read_with_bases(RECIPES / "overlays/random_expand.yml")["TrainReader"]
    registry["TrainReader"].update(sample_transforms=[*coco["sample_transforms"], *expand["sample_transforms"][1:]])
    loader = build_loader(registry, "Train", labels=False)
    loader.set_epoch(0)
    assert [len(batch[0]) for batch in loader] == [2, 2, 1]


def test_the_first_images_can_be_taken(registry, folder):
    assert len(load(registry, folder, sample_num=3).dataset) == 3


def test_annotated_images_can_be_used_without_their_labels(registry):
    loader = build_loader(registry, "Train", labels=False)
    loader.set_epoch(0)
    assert len(next(iter(loader))) == 3


def test_an_image_folder_with_labels_is_an_input_error(registry, folder):
    load(registry, folder)
    with pytest.raises(InputError, match=r"TrainDataset: ImageFolder has no annotations; .*Distillation: {labels: fa"):
        build_loader(registry, "Train")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"image_dir": "missing"}, "no image folder at .*missing"),
        ({"image_dir": ["a", "b"]}, "TrainDataset.image_dir must be a string, got"),
    ],
)
def test_a_folder_that_cannot_be_used_is_an_input_error(registry, folder, keys, message):
    load(registry, folder)
    registry["TrainDataset"].update(keys)
    with pytest.raises(InputError, match=message):
        build_loader(registry, "Train", labels=False)


def test_a_folder_without_images_is_an_input_error(registry, folder):
    for file in folder.rglob("*.*"):
        file.unlink()
    with pytest.raises(InputError, match=r"no image in .*; images end in \.jpg, \.jpeg, \.png, \.bmp"):
        load(registry, folder)


def test_an_unreadable_image_is_an_input_error_that_names_it(registry, folder):
    shutil.copy(folder / "notes.txt", folder / "a.jpg")
    loader = load(registry, folder)
    loader.set_epoch(0)
    with pytest.raises(InputError, match=r"a\.jpg: cannot be used: ValueError: not an image"):
        list(loader)
