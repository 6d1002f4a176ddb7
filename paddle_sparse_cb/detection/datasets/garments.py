"""A detection data set composed from Fashion-MNIST: garments of ten classes on noisy canvases, with their boxes.

The data set is small and cheap, and PicoDet reaches a high mAP on it, so that a loss of a few percent can be
distinguished from noise. Images and boxes depend only on the constants below and are the same on every machine.
Source of the garments: H. Xiao, K. Rasul and R. Vollgraf, "Fashion-MNIST" (2017), MIT license.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...utils.messages import logger
from ...utils.packages import DebianPackage, fetch_debian_package
from .composing import CocoImages, find_place

FASHION_MNIST = DebianPackage(
    "dataset-fashion-mnist",
    "0.0~git20200523.55506a9-1",
    "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
    31,
)
CLASSES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
CANVAS = 96  # pixels
IMAGES = {"train": 1600, "val": 400}
# Training canvases show garments of Fashion-MNIST's training set, validation canvases those of its test set.
FILES = {"train": "train", "val": "t10k"}
_MAX_GARMENTS = 4  # per canvas
_SIDE_RANGE = 20, 56  # pixels of a garment's longer side
_MAX_OVERLAP = 0.2  # share of a garment's box that another box may cover
_FOREGROUND = 32  # lowest grey value of a pixel that belongs to the garment


def fetch_fashion_mnist() -> Path:
    """Downloads Fashion-MNIST on first use, which needs apt but no root.

    Returns:
        The folder with its four `*-ubyte.gz` files.

    Raises:
        PipelineError: the package cannot be downloaded.
    """
    return fetch_debian_package(FASHION_MNIST) / "usr" / "share" / "datasets" / "fashion-mnist"


def compose(fashion: Path, folder: Path) -> None:
    """Writes the canvases and COCO annotations of both splits.

    Args:
        fashion: folder with Fashion-MNIST's four `*-ubyte.gz` files.
        folder: the new folder to which `images/`, `train.json` and `val.json` are written.
    """
    logger.info(f"composing canvases of {CANVAS} pixels ...")
    (folder / "images").mkdir(parents=True)
    for seed, (split, count) in enumerate(IMAGES.items()):
        garments = _read(fashion / f"{FILES[split]}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)
        labels = _read(fashion / f"{FILES[split]}-labels-idx1-ubyte.gz", 8)
        coco = _write(np.random.RandomState(seed), garments, labels, count, folder / "images", split)
        (folder / f"{split}.json").write_text(json.dumps(coco))


def _read(path: Path, header: int) -> np.ndarray:
    """Returns the bytes of an IDX file after its header."""
    return np.frombuffer(gzip.decompress(path.read_bytes()), dtype=np.uint8, offset=header)


def _write(
    random: np.random.RandomState, garments: np.ndarray, labels: np.ndarray, count: int, images_dir: Path, split: str
) -> dict[str, Any]:
    images = CocoImages(images_dir, CLASSES)
    for number in range(1, count + 1):
        chosen = random.choice(len(garments), random.randint(1, _MAX_GARMENTS + 1), replace=False)
        canvas, boxes = draw(random, [garments[index] for index in chosen])
        objects = [(int(labels[index]), box) for index, box in zip(chosen, boxes) if box is not None]
        images.add(f"{split}_{number:04d}.png", canvas, objects)
    return images.annotations()


def draw(random: np.random.RandomState, garments: Sequence[np.ndarray]) -> tuple[np.ndarray, list[list[int] | None]]:
    """Draws garments on a canvas of coloured noise.

    Args:
        random: source of sizes, positions and colours.
        garments: grey images [28, 28], uint8, bright on black.

    Returns:
        The canvas [CANVAS, CANVAS, 3], uint8, and for each garment its COCO box (x, y, width, height in pixels), or
        None if no position was found for it.
    """
    import cv2

    canvas = random.uniform(40, 215, 3) + random.normal(0, 12, (CANVAS, CANVAS, 3))
    boxes: list[list[int] | None] = []
    for garment in garments:
        cropped = _crop(garment)
        scale = random.randint(_SIDE_RANGE[0], _SIDE_RANGE[1] + 1) / max(cropped.shape)
        height, width = (max(4, round(side * scale)) for side in cropped.shape)
        box = find_place(random, (width, height), CANVAS, [box for box in boxes if box], _MAX_OVERLAP)
        boxes.append(box)
        if box is None:
            continue
        grey = cv2.resize(cropped, (width, height), interpolation=cv2.INTER_LINEAR)[..., None].astype(float)
        opacity = np.clip(grey / _FOREGROUND, 0, 1)
        tinted = grey / 255 * random.uniform(80, 255, 3)
        part = canvas[box[1] : box[1] + height, box[0] : box[0] + width]
        part[:] = opacity * tinted + (1 - opacity) * part
    return canvas.clip(0, 255).astype(np.uint8), boxes


def _crop(garment: np.ndarray) -> np.ndarray:
    """Crops a garment to its foreground."""
    rows, columns = ((garment >= _FOREGROUND).any(axis=axis).nonzero()[0] for axis in (1, 0))
    return garment[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
