"""Converts annotations of other formats to the content of a COCO file: Pascal VOC's XML, and YOLO's text files.

Masks and other additions are left out: a detector needs boxes only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from defusedxml import ElementTree
from defusedxml.common import DefusedXmlException
from PIL import Image

from ...errors import InputError
from .images import ORIENTATION, QUARTER_TURNS

_MAX_NAMES = 1 << 20
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


class CocoBuilder:
    """Collects images and boxes as the content of a COCO file.

    Args:
        classes: the names of the classes; others are added when they are first seen, unless there are some.
    """

    def __init__(self, classes: Sequence[str] = ()) -> None:
        self._numbers = {name: number for number, name in enumerate(classes, 1)}
        self._is_fixed = bool(classes)
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    def add_image(self, name: str, width: int, height: int) -> None:
        """Adds an image, to which the next boxes belong."""
        self._images.append({"id": len(self._images) + 1, "file_name": name, "width": width, "height": height})

    def add_box(self, label: str, corners: Sequence[float], is_crowd: bool = False) -> None:
        """Adds a box of x1, y1, x2, y2 in pixels.

        Raises:
            InputError: the class is not one of those that were given.
        """
        if label not in self._numbers:
            if self._is_fixed:
                raise InputError(f"class {label!r} is not one of {', '.join(self._numbers)[:200]}")
            self._numbers[label] = len(self._numbers) + 1
        x1, y1, x2, y2 = corners
        self._annotations.append(
            {
                "id": len(self._annotations) + 1,
                "image_id": len(self._images),
                "category_id": self._numbers[label],
                "bbox": [round(value, 2) for value in (x1, y1, x2 - x1, y2 - y1)],
                "area": round((x2 - x1) * (y2 - y1), 2),
                "iscrowd": int(is_crowd),
            }
        )

    def content(self) -> dict[str, Any]:
        """Returns the content of the file."""
        categories = [{"id": number, "name": name} for name, number in self._numbers.items()]
        return {"images": self._images, "annotations": self._annotations, "categories": categories}


def from_voc(pairs: Iterable[tuple[Path, Path]], root: Path, classes: Sequence[str] = ()) -> dict[str, Any]:
    """Converts Pascal VOC's annotations. Boxes that are marked as difficult become crowd boxes.

    Args:
        pairs: images and their XML files.
        root: the folder to which the names of the images will be relative.
        classes: the names of the classes; by default those that occur, sorted.

    Raises:
        InputError: a file cannot be read, or has a class that is not one of `classes`.
    """
    trees = [(image, path, _parse_xml(path)) for image, path in pairs]
    names = {str(label) for _, _, tree in trees for label in (one.findtext("name") for one in tree.iter("object"))}
    builder = CocoBuilder(classes or sorted(names))
    for image, path, tree in trees:
        try:
            size = [int(float(tree.findtext(f"size/{side}", "0"))) for side in ("width", "height")]
            width, height = size if all(size) else image_size(image)
            builder.add_image(image.relative_to(root).as_posix(), width, height)
            for one in tree.iter("object"):
                corners = [float(one.findtext(f"bndbox/{corner}", "")) for corner in _CORNERS]
                builder.add_box(str(one.findtext("name")), corners, one.findtext("difficult", "0").strip() == "1")
        except (OverflowError, ValueError) as error:  # InputError is a ValueError
            raise InputError(f"{path}: cannot be used: {error}") from None
    return builder.content()


def _parse_xml(path: Path) -> Any:
    try:
        return ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError, DefusedXmlException, ValueError) as error:
        raise InputError(f"{path}: not an annotation in Pascal VOC's format: {error}") from None


def from_yolo(images: Path, labels: Path, names: Path, root: Path) -> dict[str, Any]:
    """Converts YOLO's annotations, which supervision reads.

    Args:
        images: the folder of the images.
        labels: the folder of the text files, one for each image with boxes.
        names: the YAML file with `names`, of at most a megabyte.
        root: the folder to which the names of the images will be relative.

    Raises:
        InputError: a file cannot be read.
    """
    import supervision

    if names.stat().st_size > _MAX_NAMES:
        raise InputError(f"{names}: must have at most {_MAX_NAMES:,} bytes, got {names.stat().st_size:,}")
    try:
        dataset = supervision.DetectionDataset.from_yolo(str(images), str(labels), str(names))
        classes = [str(name) for name in dataset.classes]
        builder = CocoBuilder(classes)
        for path in sorted(dataset.image_paths):
            size = image_size(Path(path))
            builder.add_image(Path(path).resolve().relative_to(root.resolve()).as_posix(), *size)
            found = dataset.annotations[path]
            with Image.open(path) as image:  # supervision does not turn it as its EXIF orientation says
                scale = [actual / stored for actual, stored in zip(size, image.size)] * 2
            for number, corners in zip([] if found.class_id is None else found.class_id.tolist(), found.xyxy.tolist()):
                builder.add_box(classes[number], [value * factor for value, factor in zip(corners, scale)])
    except InputError:
        raise
    except (AttributeError, LookupError, OSError, RecursionError, TypeError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"{labels}: not annotations in YOLO's format: {' '.join(str(error).split())}") from None
    return builder.content()


def image_size(path: Path) -> tuple[int, int]:
    """Returns width and height of an image as it is decoded, from its header.

    Raises:
        InputError: the file is no image.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            return (height, width) if image.getexif().get(ORIENTATION, 1) >= QUARTER_TURNS else (width, height)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: not an image: {error}") from None
