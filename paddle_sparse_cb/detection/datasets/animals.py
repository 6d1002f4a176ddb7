"""A detection data set composed from photographs: cut-out animals on landscapes, with their boxes.

The cut-outs come from Tux Paint's stamps (GPL-2), the landscapes from the wallpapers of Ubuntu Touch (CC BY 4.0 and
CC0). The validation has landscapes of its own, and shows the animals of the training at other sizes and angles, in
other light and company. Which photographs are combined, and how, depends only on the constants below.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...utils.messages import logger
from .composing import CocoImages, find_place

CANVAS = 384  # pixels; the recipes reduce the images for the network
IMAGES = {"train": 480, "val": 120}
# Folder below Tux Paint's animals, and photographs in it.
ANIMALS = {
    "bird": (
        "birds",
        "adelaide-rosella albino_peahen blackbird chicken_profile crow crowned_crane cuckoo drake duck gander "
        "guineafowl helmeted_guineafowl hen heron_greatblue heron_greatblue_flying lark magpie nandou ostrich owl "
        "peacock pelican pigeon pink_flamingo quetzal rainbow-lorikeet rooster seagull silver-gull tucan turkey "
        "vulture",
    ),
    "big cat": ("mammals/cats", "lion lion-2 tiger tiger_sumatran"),
    "deer": ("mammals/deer", "caribou deer doe wapiti"),
    "gnu": ("mammals/bovines", "gnu-baby gnu-baby-stand gnu-sitting gnu-stand"),
    "penguin": ("birds", "little-penguin magellanic_penguin penguin"),
    "pig": ("mammals", "pig pig_golden pig_golden2 wildboar"),
    "rabbit": ("mammals", "rabbit_little rodents/rabbit rodents/rabbit-2"),
    "sheep": ("mammals/bovines", "ram sheep sheep_lamb"),
}
CLASSES = tuple(ANIMALS)
LANDSCAPES = {
    "train": ("life_by_Aitzol_Berasategi", "picosdeeuropa_by_Aitzol_Berasategi", "seeding_by_Clements_Engelhardt"),
    "val": ("aitzgorri_by_Aitzol_Berasategi", "sunset_by_Aitzol_Berasategi"),
}
_MAX_ANIMALS = 4  # per image
_SIDE_RANGE = 100, 210  # pixels of an animal's longer side
_MAX_OVERLAP = 0.08  # share of an animal's box that another box may cover
_MAX_ANGLE = 12.0  # degrees
_OPAQUE = 128  # lowest alpha of a pixel that belongs to the animal
_SHADE = 0.4  # darkness of a shadow
_JPEG_QUALITY = 92


def compose(stamps: Path, wallpapers: Path, folder: Path) -> None:
    """Writes the images and COCO annotations of both splits.

    Args:
        stamps: the folder `tuxpaint/stamps/animals`.
        wallpapers: the folder with the landscapes.
        folder: the new folder to which `images/`, `train.json` and `val.json` are written.
    """
    import cv2

    logger.info(f"composing images of {CANVAS} pixels ...")
    (folder / "images").mkdir(parents=True)
    animals = [
        [_read(stamps / where / f"{name}.png", cv2.IMREAD_UNCHANGED) for name in names.split()]
        for where, names in ANIMALS.values()
    ]
    for seed, (split, count) in enumerate(IMAGES.items()):
        random = np.random.RandomState(seed)
        landscapes = [_read(wallpapers / f"{name}.jpg", cv2.IMREAD_COLOR) for name in LANDSCAPES[split]]
        images = CocoImages(folder / "images", CLASSES)
        for number in range(1, count + 1):
            labels = random.randint(len(CLASSES), size=random.randint(1, _MAX_ANIMALS + 1))
            chosen = [animals[label][random.randint(len(animals[label]))] for label in labels]
            canvas, boxes = draw(random, landscapes[random.randint(len(landscapes))], chosen)
            objects = [(int(label), box) for label, box in zip(labels, boxes) if box is not None]
            images.add(f"{split}_{number:03d}.jpg", canvas, objects, cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY)
        (folder / f"{split}.json").write_text(json.dumps(images.annotations()))


def _read(file: Path, flags: int) -> np.ndarray:
    """Reads a file of a package whose digest has been verified."""
    import cv2

    return np.asarray(cv2.imread(str(file), flags))


def draw(
    random: np.random.RandomState, landscape: np.ndarray, animals: Sequence[np.ndarray]
) -> tuple[np.ndarray, list[list[int] | None]]:
    """Draws animals with their shadows on a part of a landscape.

    Args:
        random: source of sizes, positions and colours.
        landscape: [height, width, 3], uint8, BGR.
        animals: [height, width, 4], uint8, BGR and alpha.

    Returns:
        The image [CANVAS, CANVAS, 3], uint8, and for each animal its COCO box (x, y, width, height in pixels), or None
        if no position was found for it.
    """
    import cv2

    height, width = landscape.shape[:2]
    side = int(min(height, width) * random.uniform(0.35, 1))
    # From the lower part of the landscape: less sky, and more ground to stand on.
    top, left = random.randint((height - side) // 2, height - side + 1), random.randint(0, width - side + 1)
    part = landscape[top : top + side, left : left + side]
    canvas = cv2.resize(part, (CANVAS, CANVAS), interpolation=cv2.INTER_AREA).astype(np.float32)
    canvas *= random.uniform(0.75, 1.15)
    boxes: list[list[int] | None] = []
    for animal in animals:
        cut_out = _vary(random, animal)
        height, width = cut_out.shape[:2]
        box = find_place(random, (width, height), CANVAS, [box for box in boxes if box], _MAX_OVERLAP)
        boxes.append(box)
        if box is not None:
            _paste(canvas, cut_out, box)
    return canvas.clip(0, 255).astype(np.uint8), boxes


def _vary(random: np.random.RandomState, animal: np.ndarray) -> np.ndarray:
    """Returns an animal flipped, turned, scaled and in other light, cropped to what is opaque.

    Returns:
        [height, width, 4], float32, BGR multiplied by alpha, and alpha from 0 to 255.
    """
    import cv2

    pixels = (animal[:, ::-1] if random.randint(2) else animal).astype(np.float32)
    height, width = pixels.shape[:2]
    scale = random.randint(_SIDE_RANGE[0], _SIDE_RANGE[1] + 1) / max(height, width)
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), random.uniform(-_MAX_ANGLE, _MAX_ANGLE), scale)
    size = int(1.3 * scale * max(height, width))  # room for the corners
    matrix[:, 2] += (size - width) / 2, (size - height) / 2
    pixels[..., :3] *= pixels[..., 3:] / 255  # the colours of transparent pixels do not get into the edge
    turned = cv2.warpAffine(pixels, matrix, (size, size), flags=cv2.INTER_AREA)
    rows, columns = ((turned[..., 3] >= _OPAQUE).any(axis=axis).nonzero()[0] for axis in (1, 0))
    cropped: np.ndarray = turned[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    cropped[..., :3] *= random.uniform(0.8, 1.15)
    return cropped


def _paste(canvas: np.ndarray, cut_out: np.ndarray, box: Sequence[int]) -> None:
    """Draws a cut-out (see `_vary`) and its shadow, which falls to the lower right."""
    import cv2

    left, top, width, height = box
    alpha = cut_out[..., 3:] / 255
    shift = max(2, height // 25)
    shadow = np.zeros((CANVAS, CANVAS), np.float32)
    part = shadow[top + shift : top + shift + height, left + shift : left + shift + width]
    part[:] = alpha[: part.shape[0], : part.shape[1], 0]
    canvas *= 1 - _SHADE * cv2.GaussianBlur(shadow, (0, 0), shift)[..., None]
    part = canvas[top : top + height, left : left + width]
    part[:] = cut_out[..., :3].clip(0, 255) + (1 - alpha) * part
