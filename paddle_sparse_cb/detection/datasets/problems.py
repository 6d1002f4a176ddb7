"""All that is wrong with annotations in COCO's format and their images, with counts and examples."""

from __future__ import annotations

import io
import os
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from ...utils.text import one_line
from .images import ORIENTATION, QUARTER_TURNS, check_image

_EXAMPLES = 3
_MAX_NUMBER = 1e30  # as in `metric`
_LEAST_SIDE = 1.0  # pixels of an annotated box


@dataclass(frozen=True)
class Problem:
    """Something that is wrong with data or with a recipe.

    Attributes:
        text: what is wrong, and what happens because of it.
        is_error: whether a training cannot start, or would end; otherwise its result may be poor.
        count: how many times it was found; 0 for what cannot be counted.
        examples: some of the places.
    """

    text: str
    is_error: bool = True
    count: int = 0
    examples: tuple[str, ...] = ()

    def __str__(self) -> str:
        shown = "; ".join(self.examples)
        more = "; ..." if self.count > len(self.examples) else ""
        counted = f"{self.count:,} x " if self.count else ""
        return f"{'error' if self.is_error else 'warning'}: {counted}{self.text}{f': {shown}{more}' if shown else ''}"


@dataclass
class _Collected:
    """Places by what is wrong with them, in the order in which each was first found."""

    places: dict[tuple[bool, str], list[str]] = field(default_factory=lambda: defaultdict(list))

    def error(self, text: str, place: object) -> None:
        self.places[True, text].append(_shorten(place))

    def warning(self, text: str, place: object) -> None:
        self.places[False, text].append(_shorten(place))

    def problems(self) -> list[Problem]:
        return [
            Problem(text, is_error, len(places), tuple(places[:_EXAMPLES]))
            for (is_error, text), places in self.places.items()
        ]


def find_problems(content: Any, images: Path) -> list[Problem]:
    """Looks for everything that would end a training on annotations, or spoil its result.

    Args:
        content: what the annotation file contains.
        images: the folder to which the names of the images are relative. All images are read.

    Returns:
        A problem for each kind of defect.
    """
    if not isinstance(content, dict):
        return [Problem(f"the annotations must be a mapping, got {type(content).__name__}")]
    lists = {key: content.get(key) for key in ("images", "annotations", "categories")}
    missing = [key for key, value in lists.items() if not isinstance(value, list)]
    if missing:
        return [Problem(f"{key!r} must be a list, got {type(lists[key]).__name__}") for key in missing]
    found = _Collected()
    categories = _check_categories(lists["categories"] or [], found)
    sizes = _check_images(lists["images"] or [], images, found)
    boxes = _check_boxes(lists["annotations"] or [], sizes, categories, found)
    empty = [number for number in sizes if not boxes[number]]
    for number in empty:
        found.warning("images without a box, which are not trained on", f"id {number}")
    used = set().union(*boxes.values())
    for number, name in categories.items():
        if number not in used:
            found.warning("classes without a box", name)
    return found.problems()


def _check_categories(categories: list[Any], found: _Collected) -> dict[Any, str]:
    names: dict[Any, str] = {}
    for category in categories:
        if not isinstance(category, dict) or not {"id", "name"} <= category.keys() or _is_container(category["id"]):
            found.error("categories must have an id and a name", str(category)[:80])
            continue
        if category["id"] in names or category["name"] in names.values():
            found.error("categories with the id or the name of another one", f"{category['id']} {category['name']}")
        names[category["id"]] = str(category["name"])
    return names


def _check_images(records: list[Any], folder: Path, found: _Collected) -> dict[Any, tuple[float, float]]:
    """Returns width and height of each usable image by its id."""
    sizes: dict[Any, tuple[float, float]] = {}
    names: Counter[str] = Counter()
    for record in records:
        if not isinstance(record, dict) or not isinstance(record.get("file_name"), str) or "id" not in record:
            found.error("images must have an id and a file_name", str(record)[:80])
            continue
        name, number = record["file_name"], record["id"]
        if type(number) is not int or abs(number) >= 2**63:
            found.error("ids of images must be integers of at most 64 bits", f"{name}: {number!r}")
            continue
        if number in sizes:
            found.error("images with the id of another one", f"{name}: {number}")
        names[name] += 1
        size: Any = (record.get("width"), record.get("height"))
        if not all(_is_number(side) and side >= 1 for side in size):
            found.error("images must have a width and a height", name)
            size = (0, 0)
        sizes[number] = (float(size[0]), float(size[1]))
        _check_file(folder / name, name, sizes[number], found)
    for name, count in names.items():
        if count > 1:
            found.warning("images that are listed more than once", name)
    return sizes


def _check_file(path: Path, name: str, size: tuple[float, float], found: _Collected) -> None:
    if not os.path.isfile(path):  # unlike Path.is_file, it accepts names that are too long
        found.error("images are not there", f"{path} is no file" if os.path.exists(path) else path)
        return
    content = path.read_bytes()
    try:
        check_image(content)
    except ValueError as error:
        found.error("images cannot be used", f"{path}: {error}")
        return
    with Image.open(io.BytesIO(content)) as image:
        actual = tuple(map(float, image.size))
        is_turned = image.getexif().get(ORIENTATION, 1) >= QUARTER_TURNS  # by a quarter, when it is decoded
    if is_turned:
        actual = actual[::-1]
    if size != (0.0, 0.0) and actual != size:
        what = "images have another size than in the annotations" + (" (they are turned by EXIF)" if is_turned else "")
        found.warning(what, f"{name}: {_by(actual)}, annotated {_by(size)}")


def _check_boxes(
    annotations: list[Any], sizes: dict[Any, tuple[float, float]], categories: dict[Any, str], found: _Collected
) -> dict[Any, set[Any]]:
    """Returns the categories of the usable boxes in each image."""
    labels: dict[Any, set[Any]] = defaultdict(set)
    numbers: set[Any] = set()
    for annotation in annotations:
        if not isinstance(annotation, dict):
            found.error("annotations must be mappings", str(annotation)[:80])
            continue
        number, image, category = (annotation.get(key) for key in ("id", "image_id", "category_id"))
        place = f"annotation {number!r}"
        if any(map(_is_container, (number, image, category))):
            found.error("ids must be numbers", place[:80])
            continue
        if number in numbers:
            found.error("annotations with the id of another one", place)
        numbers.add(number)
        if image not in sizes:
            found.error("annotations of images that are not listed", f"{place}: image_id {image!r}")
        elif category not in categories:
            found.error("annotations with a category that is not listed", f"{place}: category_id {category!r}")
        elif _check_box(annotation, sizes[image], place, found) and not annotation.get("iscrowd"):
            labels[image].add(category)
    return labels


def _check_box(annotation: dict[str, Any], size: tuple[float, float], place: str, found: _Collected) -> bool:
    """Returns whether a box can be trained on."""
    box = annotation.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        found.error("annotations without a bbox of four numbers", f"{place}: {str(box)[:60]}")
        return False
    absent = [key for key in ("id", "area", "iscrowd") if not _is_number(annotation.get(key))]
    if absent:
        found.error(f"annotations without a number as {' and '.join(absent)}, which are needed", place)
    x, y, width, height = box
    if width < _LEAST_SIDE or height < _LEAST_SIDE:
        found.warning("boxes of less than a pixel, which are not trained on", f"{place}: {_by((width, height))}")
        return False
    if size == (0.0, 0.0):
        return True
    if x >= size[0] or y >= size[1] or x + width <= 0 or y + height <= 0:
        found.warning("boxes outside of their image, which are not trained on", f"{place}: {box} in {_by(size)}")
        return False
    if x < -1 or y < -1 or x + width > size[0] + 1 or y + height > size[1] + 1:
        found.warning("boxes that exceed their image and are clipped", f"{place}: {box} in {_by(size)}")
    return True


def find_differences(train: Any, val: Any, folders: Iterable[Path]) -> list[Problem]:
    """Compares the data of the training with those of the evaluation.

    Args:
        train: the annotations of the training, without errors.
        val: those of the evaluation.
        folders: the image folders of both.
    """
    found = _Collected()
    names = [[category["name"] for category in content["categories"]] for content in (train, val)]
    if names[0] != names[1]:
        found.error("the classes of the evaluation differ from those of the training", f"{names[0]}, {names[1]}"[:300])
    paths = [
        {(folder / image["file_name"]).resolve() for image in content["images"]}
        for folder, content in zip(folders, (train, val))
    ]
    for path in sorted(paths[0] & paths[1]):
        found.warning("images are in the training and in the evaluation, whose result they flatter", path.name)
    trained = {annotation["category_id"] for annotation in train["annotations"]}
    for category in val["categories"]:
        is_evaluated = any(annotation["category_id"] == category["id"] for annotation in val["annotations"])
        if is_evaluated and category["id"] not in trained:
            found.warning("classes are evaluated but never trained", category["name"])
    return found.problems()


def _shorten(place: object) -> str:
    """Returns one line of at most 200 characters."""
    text = one_line(str(place)[:201])
    return text if len(text) <= 200 else f"{text[:197]}..."


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _MAX_NUMBER


def _is_container(value: object) -> bool:
    return isinstance(value, (dict, list))


def _by(size: Iterable[float]) -> str:
    return " x ".join(f"{side:g}" for side in size)
