"""A detection set composed from Fashion-MNIST: garments of ten classes on noisy canvases, each with its box.

It is small, cheap and yet learnt to a high mAP, so that a loss of a few percent can be told from noise. Images and
boxes follow from the constants below alone: the same on every machine.
Source of the garments: H. Xiao, K. Rasul and R. Vollgraf, "Fashion-MNIST" (2017), MIT.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

CLASSES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
CANVAS = 96  # pixels
IMAGES = {"train": 1600, "val": 400}
# Training canvases show Fashion-MNIST's training garments, the others its test garments, so that none is seen in both.
FILES = {"train": "train", "val": "t10k"}
_MOST = 4  # garments on a canvas
_SIDES = 20, 56  # pixels of a garment's longer side
_COVERED = 0.2  # of a garment's box that another's may cover
_INK = 32  # grey value from which a pixel belongs to the garment


def compose(fashion: Path, folder: Path) -> None:
    """Writes the canvases and COCO annotations of both splits.

    Args:
        fashion: folder with Fashion-MNIST's four `*-ubyte.gz` files.
        folder: gets `images/`, `train.json` and `val.json`; does not exist yet.
    """
    print(f"composing canvases of {CANVAS} pixels ...", flush=True)
    (folder / "images").mkdir(parents=True)
    for seed, (split, count) in enumerate(IMAGES.items()):
        garments = _read(fashion / f"{FILES[split]}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)
        labels = _read(fashion / f"{FILES[split]}-labels-idx1-ubyte.gz", 8)
        coco = _write(np.random.RandomState(seed), garments, labels, count, folder / "images", split)
        (folder / f"{split}.json").write_text(json.dumps(coco))


def _read(path: Path, header: int) -> np.ndarray:
    """The bytes of an IDX file behind its header."""
    return np.frombuffer(gzip.decompress(path.read_bytes()), dtype=np.uint8, offset=header)


def _write(random: np.random.RandomState, garments: np.ndarray, labels: np.ndarray, count: int, images_dir: Path,
           split: str) -> dict[str, Any]:
    import cv2

    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id in range(1, count + 1):
        chosen = random.choice(len(garments), random.randint(1, _MOST + 1), replace=False)
        canvas, boxes = draw(random, [garments[index] for index in chosen])
        file_name = f"{split}_{image_id:04d}.png"
        cv2.imwrite(str(images_dir / file_name), canvas)
        images.append({"id": image_id, "file_name": file_name, "height": CANVAS, "width": CANVAS})
        for index, box in zip(chosen, boxes):
            if box is not None:
                annotations.append({"id": len(annotations) + 1, "image_id": image_id, "bbox": box, "iscrowd": 0,
                                    "category_id": int(labels[index]) + 1, "area": box[2] * box[3]})
    categories = [{"id": number, "name": name} for number, name in enumerate(CLASSES, 1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def draw(random: np.random.RandomState, garments: Sequence[np.ndarray]) -> tuple[np.ndarray, list[list[int] | None]]:
    """Draws garments on a canvas of coloured noise.

    Args:
        random: where the sizes, places and colours come from.
        garments: grey images [28, 28], uint8, bright on black.

    Returns:
        The canvas [CANVAS, CANVAS, 3], uint8, and the box of each garment in pixels as COCO has it (x, y, width,
        height), or None for a garment that found no place.
    """
    import cv2

    canvas = random.uniform(40, 215, 3) + random.normal(0, 12, (CANVAS, CANVAS, 3))
    boxes: list[list[int] | None] = []
    for garment in garments:
        cut = _cut(garment)
        scale = random.randint(_SIDES[0], _SIDES[1] + 1) / max(cut.shape)
        height, width = (max(4, round(side * scale)) for side in cut.shape)
        box = _place(random, width, height, [box for box in boxes if box])
        boxes.append(box)
        if box is None:
            continue
        grey = cv2.resize(cut, (width, height), interpolation=cv2.INTER_LINEAR)[..., None].astype(float)
        opacity = np.clip(grey / _INK, 0, 1)
        tinted = grey / 255 * random.uniform(80, 255, 3)
        part = canvas[box[1]:box[1] + height, box[0]:box[0] + width]
        part[:] = opacity * tinted + (1 - opacity) * part
    return canvas.clip(0, 255).astype(np.uint8), boxes


def _cut(garment: np.ndarray) -> np.ndarray:
    """A garment without the black around it."""
    rows, columns = ((garment >= _INK).any(axis=axis).nonzero()[0] for axis in (1, 0))
    return garment[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1]


def _place(random: np.random.RandomState, width: int, height: int, taken: list[list[int]]) -> list[int] | None:
    """A box that hides little of those that are taken, and is hidden little by them; None after 20 tries."""
    for _ in range(20):
        left, top = random.randint(0, CANVAS - width + 1), random.randint(0, CANVAS - height + 1)
        shared = [max(0, min(left + width, x + w) - max(left, x)) * max(0, min(top + height, y + h) - max(top, y))
                  for x, y, w, h in taken]
        if all(area <= _COVERED * min(width * height, w * h) for area, (_, _, w, h) in zip(shared, taken)):
            return [left, top, width, height]
    return None
