"""Pretrained weights and annotated images that packages contain, for demos and tests without a model hub.

- `sample:picodet_s_416_lcnet`: PicoDet-s LCNet trained on COCO, from the wheel `paddlelabel-ml` (Apache-2.0).
- `sample:trees_256`: aerial photographs of trees from the wheel `deepforest` (MIT), cut into tiles of 256 pixels.
- `sample:animals_384`: composed from cut-out animals and landscapes (see `animals`), from two Debian packages.
- `sample:garments_96`: composed from Fashion-MNIST (MIT, see `garments`), from a Debian package.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from defusedxml import ElementTree

from ...errors import InputError, did_you_mean
from ...utils.downloads import cached_folder
from ...utils.messages import logger
from ...utils.packages import DebianPackage, Wheel, fetch_debian_package, fetch_wheel
from . import animals, garments

TILE = 256  # pixels
MIN_VISIBLE = 0.5  # share of a tree's box that a tile must show more of to contain the tree; so at most one tile does

WEIGHTS = Wheel("paddlelabel-ml", "1.0.0", "d3590ed527f3130536ec8cf2d1223f8cca18a320c9f98a109f2f93d9afd131bd", 67)
PHOTOGRAPHS = Wheel("deepforest", "2.1.0", "8c2798d8e9be7f0004b194fe207b76c1d9fff6e711b3db67b9508dcd5d00ae54", 21)
STAMPS = DebianPackage(
    "tuxpaint-stamps-default",
    "2022.06.04-1",
    "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
    161,
)
LANDSCAPES = DebianPackage(
    "lomiri-wallpapers-16.04",
    "20.04.0-2",
    "a99ff6a3bfe451e4cc0682ecb3cc82e71740626d59e4845ae34a0a0e45421eab",
    16,
)

# By photograph, so that no tree is in both splits.
SPLITS = {
    "train": ("2019_YELL_2_528000_4978000_image_crop2", "SOAP_061"),
    "val": ("2019_YELL_2_541000_4977000_image_crop", "OSBS_029"),
}


def resolve(name: str) -> Path:
    """Returns the path of a sample and downloads it on first use.

    Args:
        name: `picodet_s_416_lcnet` (prefix of an exported model), `animals_384`, `trees_256` or `garments_96` (folders
            with `images/`, `train.json` and `val.json` in COCO's format).

    Raises:
        InputError: no such sample.
        PipelineError: the package cannot be downloaded.
    """
    makers = {
        "picodet_s_416_lcnet": _weights,
        "trees_256": _trees,
        f"animals_{animals.CANVAS}": _animals,
        f"garments_{garments.CANVAS}": _garments,
    }
    if name not in makers:
        raise InputError(f"sample:{name}: no such sample; {did_you_mean(name, makers)}")
    return makers[name]()


def _weights() -> Path:
    return fetch_wheel(WEIGHTS) / "paddlelabel_ml" / "model" / "PicoDet" / "ckpt" / "model"


def _trees() -> Path:
    return cached_folder(f"trees_{TILE}", _tile_photographs)


def _animals() -> Path:
    def build(folder: Path) -> None:
        stamps = fetch_debian_package(STAMPS) / "usr" / "share" / "tuxpaint" / "stamps" / "animals"
        landscapes = fetch_debian_package(LANDSCAPES) / "usr" / "share" / "backgrounds"
        animals.compose(stamps, landscapes, folder)

    return cached_folder(f"animals_{animals.CANVAS}", build)


def _garments() -> Path:
    fashion = garments.fetch_fashion_mnist()
    return cached_folder(f"garments_{garments.CANVAS}", lambda folder: garments.compose(fashion, folder))


def _tile_photographs(folder: Path) -> None:
    """Writes the tiles and the annotations of both splits."""
    photographs = fetch_wheel(PHOTOGRAPHS) / "deepforest" / "data"
    logger.info(f"cutting the photographs into tiles of {TILE} pixels ...")
    (folder / "images").mkdir(parents=True)
    for split, names in SPLITS.items():
        coco = _tile([photographs / name for name in names], folder / "images")
        (folder / f"{split}.json").write_text(json.dumps(coco))


def _tile(photographs: list[Path], images_dir: Path) -> dict[str, Any]:
    """Cuts photographs into tiles, writes those with a tree, and returns their COCO annotations."""
    import cv2

    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for photograph in photographs:
        pixels = cv2.imread(str(photograph.with_suffix(".png")), cv2.IMREAD_COLOR)
        boxes = _read_boxes(photograph.with_suffix(".xml"))
        for left, top, tile in _tiles(pixels):
            height, width = tile.shape[:2]
            visible = _clip(boxes, left, top, width, height)
            if not len(visible):
                continue
            file_name = f"{photograph.name}_{left}_{top}.png"
            cv2.imwrite(str(images_dir / file_name), tile)
            images.append({"id": len(images) + 1, "file_name": file_name, "height": height, "width": width})
            for x1, y1, x2, y2 in visible:
                box = [round(float(v), 2) for v in (x1, y1, x2 - x1, y2 - y1)]
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": len(images),
                        "category_id": 1,
                        "bbox": box,
                        "area": box[2] * box[3],
                        "iscrowd": 0,
                    }
                )
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "tree"}]}


def _read_boxes(xml: Path) -> Any:
    """Reads the boxes of a VOC annotation: an array [n, 4] of x1, y1, x2, y2 in pixels."""
    import numpy as np

    corners = ("xmin", "ymin", "xmax", "ymax")
    boxes = [[float(box.findtext(corner, "0")) for corner in corners] for box in ElementTree.parse(xml).iter("bndbox")]
    return np.array(boxes, dtype=np.float32).reshape(-1, 4)


def _tiles(pixels: Any) -> Iterator[tuple[int, int, Any]]:
    """Yields the left and top edge and the pixels of each tile; tiles at the far edges are padded with black."""
    import cv2

    height, width = pixels.shape[:2]
    for top in range(0, height, TILE):
        for left in range(0, width, TILE):
            tile = pixels[top : top + TILE, left : left + TILE]
            missing = (0, TILE - tile.shape[0], 0, TILE - tile.shape[1])
            yield left, top, cv2.copyMakeBorder(tile, *missing, cv2.BORDER_CONSTANT)


def _clip(boxes: Any, left: int, top: int, width: int, height: int) -> Any:
    """Returns the boxes that are sufficiently visible in a tile, in its coordinates and clipped to it."""
    import numpy as np

    shifted = boxes - np.array([left, top, left, top], dtype=np.float32)
    clipped = shifted.clip(0, np.array([width, height, width, height], dtype=np.float32))
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    visible = (clipped[:, 2] - clipped[:, 0]) * (clipped[:, 3] - clipped[:, 1])
    return clipped[(visible > MIN_VISIBLE * area) & (area > 0)]
