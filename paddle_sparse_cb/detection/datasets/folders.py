"""Finds out what a folder of annotated images contains: COCO, Pascal VOC or YOLO, and which part is for what."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from .convert import from_voc, from_yolo

_IMAGES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_MAX_DEPTH = 3  # folders below the given one
_TRAIN, _VAL, _TEST = "train", "val", "test"
_VAL_SHARE = 0.2  # of the images, if nothing says which ones are for the evaluation
_TRIED = 20  # images of an annotation file with which its folder is looked for


@dataclass(frozen=True)
class AnnotatedImages:
    """Images with boxes.

    Attributes:
        content: the content of a COCO file.
        images: the folder to which the names of the images are relative.
        file: the COCO file that has this content; None if there is none, after a conversion.
    """

    content: dict[str, Any]
    images: Path
    file: Path | None = None

    @property
    def classes(self) -> list[str]:
        """The names of the classes."""
        return [str(category["name"]) for category in self.content["categories"]]


@dataclass(frozen=True)
class AnnotatedFolder:
    """A folder of annotated images.

    Attributes:
        format: `COCO`, `Pascal VOC` or `YOLO`.
        train: the images for the training.
        val: the images for the evaluation.
        note: how the images were divided, if the folder does not say.
    """

    format: str
    train: AnnotatedImages
    val: AnnotatedImages
    note: str = ""


def read_folder(folder: Path) -> AnnotatedFolder:
    """Looks for annotations in a folder.

    Found are COCO files anywhere in the folder; XML files of Pascal VOC, with its lists `train.txt`, `val.txt` and
    others if there are any; and YOLO's `data.yaml` with folders `labels` beside `images`. Parts are recognized by
    `train`, `val` and `test` in names. Without a part for the evaluation, one image in five is taken for it.

    Raises:
        InputError: there are no annotations, they cannot be read, or it is not clear which are meant.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    for name, find in (("COCO", _find_coco), ("YOLO", _find_yolo), ("Pascal VOC", _find_voc)):
        parts = find(folder)
        if parts:
            return _divide(name, parts, folder)
    if any(_looks_like_labelme(path) for path in _walk(folder, ".json")):
        raise InputError(f"{folder}: annotations in labelme's format; convert them to COCO, Pascal VOC or YOLO first")
    raise InputError(
        f"{folder}: no annotations found: neither a COCO file (.json with images, annotations and categories), nor "
        "Pascal VOC's XML files, nor YOLO's data.yaml and labels"
    )


def _divide(name: str, parts: dict[str, AnnotatedImages], folder: Path) -> AnnotatedFolder:
    val = parts.get(_VAL) or parts.get(_TEST)
    train = parts.get(_TRAIN)
    if train is None:
        raise InputError(f"{folder}: {name} annotations for {' and '.join(parts)}, but none for the training")
    if val is not None:
        return AnnotatedFolder(name, train, val)
    halves = split(train.content)
    note = (
        f"{len(halves[1]['images'])} of {len(train.content['images'])} images, drawn at random, are for the evaluation"
    )
    train, val = (AnnotatedImages(half, train.images) for half in halves)
    return AnnotatedFolder(name, train, val, note)


def split(content: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Divides annotated images at random, always in the same way: four fifths for the training, the rest to evaluate.

    Raises:
        InputError: there are fewer than two images with boxes.
    """
    with_boxes = {annotation["image_id"] for annotation in content["annotations"]}
    images = [image for image in content["images"] if image["id"] in with_boxes]
    if len(images) < 2:
        raise InputError(
            f"at least two images with boxes are needed, one to train and one to evaluate, got {len(images)}"
        )
    order = np.random.RandomState(0).permutation(len(images))
    chosen = {images[index]["id"] for index in order[: max(1, round(_VAL_SHARE * len(images)))]}
    halves = []
    for wanted in (False, True):
        halves.append(
            {
                "images": [image for image in content["images"] if (image["id"] in chosen) == wanted],
                "annotations": [one for one in content["annotations"] if (one["image_id"] in chosen) == wanted],
                "categories": content["categories"],
            }
        )
    return halves[0], halves[1]


def _walk(folder: Path, *suffixes: str) -> Iterator[Path]:
    """Yields files with the suffixes in a folder and in those below it, sorted; links to folders are not followed."""
    for current, folders, files in os.walk(folder):
        depth = len(Path(current).relative_to(folder).parts)
        folders[:] = sorted(name for name in folders if depth < _MAX_DEPTH and not name.startswith("."))
        for name in sorted(files):
            if Path(name).suffix.lower() in suffixes and not name.startswith("."):
                yield Path(current, name)


def _role(path: Path, folder: Path) -> str:
    """Returns what a file or folder is for, by its name and those of the folders above; the training by default."""
    for part in reversed(path.relative_to(folder).parts):
        name = part.lower()
        if _TRAIN in name:  # trainval too
            return _TRAIN
        for role in (_VAL, _TEST):
            if role in name:
                return role
    return _TRAIN


def _find_coco(folder: Path) -> dict[str, AnnotatedImages]:
    parts: dict[str, list[AnnotatedImages]] = {}
    for path in _walk(folder, ".json"):
        content = _read_json(path)
        if _is_coco(content):
            parts.setdefault(_role(path, folder), []).append(
                AnnotatedImages(content, _image_folder(path, content, folder), path)
            )
    for role, found in parts.items():
        # COCO's own folder has captions and key points too.
        instances = [one for one in found if one.file and "instances" in one.file.name] or found
        if len(instances) > 1:
            listed = ", ".join(str(one.file) for one in instances)
            raise InputError(f"{folder}: several annotation files for {role}: {listed}; keep one of them in the folder")
        parts[role] = instances
    return {role: found[0] for role, found in parts.items()}


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, RecursionError, ValueError):  # some other file, or one that `paddle-sparse check` explains
        return None


def _is_coco(content: Any) -> bool:
    if not isinstance(content, dict) or not all(
        isinstance(content.get(key), list) for key in ("images", "annotations", "categories")
    ):
        return False
    annotations = content["annotations"]
    return any(isinstance(annotation, dict) and "bbox" in annotation for annotation in annotations[:_TRIED])


def _looks_like_labelme(path: Path) -> bool:
    content = _read_json(path)
    return isinstance(content, dict) and {"shapes", "imagePath"} <= content.keys()


def _image_folder(path: Path, content: dict[str, Any], folder: Path) -> Path:
    """Returns the folder to which the names of the images are relative: the one that contains most of them."""
    names = [str(image.get("file_name")) for image in content["images"][:_TRIED] if isinstance(image, dict)]
    candidates = [path.parent, folder, *(Path(current) for current, _, _ in os.walk(folder))]
    counts = {candidate: sum(os.path.isfile(candidate / name) for name in names) for candidate in candidates}
    best = max(candidates, key=lambda candidate: counts[candidate])
    if not counts[best]:
        raise InputError(f"{path}: none of its images is in {folder}, such as {', '.join(names[:3])}")
    return best


def _find_yolo(folder: Path) -> dict[str, AnnotatedImages]:
    names = [path for path in _walk(folder, ".yaml", ".yml") if path.stem in ("data", "dataset")]
    parts: dict[str, AnnotatedImages] = {}
    for labels in [Path(current) for current, _, _ in sorted(os.walk(folder)) if "labels" in Path(current).parts]:
        images = Path(*("images" if part == "labels" else part for part in labels.parts))
        if not images.is_dir() or not any(labels.glob("*.txt")):
            continue
        if not names:
            raise InputError(f"{labels}: annotations in YOLO's format, but there is no data.yaml with the class names")
        parts[_role(labels, folder)] = AnnotatedImages(from_yolo(images, labels, names[0], folder), folder)
    return parts


def _find_voc(folder: Path) -> dict[str, AnnotatedImages]:
    pairs = _pair_voc(folder)
    if not pairs:
        return {}
    by_stem = {path.stem: path for path in pairs}
    lists: dict[str, list[Path]] = {}
    for path in _walk(folder, ".txt"):
        if path.stem in ("train", "trainval", "val", "test"):
            stems = [Path(line.split()[-1]).stem for line in _read_lines(path)]
            lists[path.stem] = [by_stem[stem] for stem in stems if stem in by_stem]
    lists = {name: listed for name, listed in lists.items() if listed}
    if not lists:
        for path in pairs:
            lists.setdefault(_role(path.parent, folder), []).append(path)
    if "trainval" in lists and not ("val" in lists and "train" in lists):
        lists[_TRAIN] = lists["trainval"]
    parts = {role: [(pairs[path], path) for path in lists[role]] for role in (_TRAIN, _VAL, _TEST) if role in lists}
    # The same numbers in all parts, in the order of the list if there is one.
    everything = [pair for part in parts.values() for pair in part]
    classes = _read_lines(folder / "label_list.txt") or [
        category["name"] for category in from_voc(everything, folder)["categories"]
    ]
    return {role: AnnotatedImages(from_voc(part, folder, classes), folder) for role, part in parts.items()}


def _pair_voc(folder: Path) -> dict[Path, Path]:
    """Returns the image of each XML file that has one: that of the same name beside it, or anywhere else."""
    images: dict[str, list[Path]] = {}
    for path in _walk(folder, *_IMAGES):
        images.setdefault(path.stem, []).append(path)
    pairs = {}
    for path in _walk(folder, ".xml"):
        found = images.get(path.stem, [])
        beside = [image for image in found if image.parent == path.parent]
        if found:
            pairs[path] = (beside or found)[0]
    return pairs


def _read_lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError):
        return []
