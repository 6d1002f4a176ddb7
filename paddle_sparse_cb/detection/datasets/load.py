"""Loads the annotations of a recipe's data set as the content of a COCO file, without the images and without ppdet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...errors import InputError
from ..config import block_settings
from . import samples
from .convert import from_voc
from .folders import AnnotatedImages
from .problems import Problem


def load_annotations(block: Any, split: str) -> tuple[AnnotatedImages | None, list[Problem]]:
    """Loads the annotations of a data set.

    Args:
        block: `TrainDataset` or `EvalDataset` of a recipe: a mapping, or what a tag such as !COCODataSet creates.
        split: its name, for messages.

    Returns:
        The annotations, or None if they cannot be loaded; and what is wrong with the files themselves.
    """
    settings = block_settings(block)
    paths = {key: settings.get(key) or "" for key in ("dataset_dir", "image_dir", "anno_path", "label_list")}
    for key, value in paths.items():
        if not isinstance(value, str):
            return None, [Problem(f"{split}.{key} must be a string, got {value!r}")]
    folder = paths["dataset_dir"]
    try:
        if folder.startswith("sample:"):
            folder = str(samples.resolve(folder[len("sample:") :]))
        file = Path(folder, paths["anno_path"])
        if not paths["anno_path"] or not file.is_file():
            return None, [Problem(f"{split}: no annotations at {file} (dataset_dir + anno_path)")]
        images = Path(folder, paths["image_dir"])
        if settings.get("name") == "VOCDataSet":
            labels = Path(folder, paths["label_list"]) if paths["label_list"] else None
            return _load_voc(file, images, labels, split)
        return AnnotatedImages(json.loads(file.read_bytes()), images, file), []
    except InputError as error:
        return None, [Problem(f"{split}: {error}")]
    except (OSError, RecursionError, ValueError) as error:
        return None, [Problem(f"{split}: {file} is not a COCO file: {type(error).__name__} {error}")]


def _load_voc(
    file: Path, folder: Path, labels: Path | None, split: str
) -> tuple[AnnotatedImages | None, list[Problem]]:
    classes = []
    if labels is not None:
        if not labels.is_file():
            return None, [Problem(f"{split}: no label_list at {labels}")]
        classes = [line.strip() for line in labels.read_text(encoding="utf-8").splitlines() if line.strip()]
    pairs, malformed, missing, damaged = [], [], [], []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        words = line.split()
        if len(words) < 2:
            malformed.append(f"line {number}: {line[:60]!r}")
            continue
        pair = (folder / words[0], folder / words[1])
        absent = [path for path in pair if not path.is_file()]
        missing += [f"line {number}: {path}" for path in absent]
        try:
            if not absent:
                from_voc([pair], folder, classes)
                pairs.append(pair)
        except InputError as error:
            damaged.append(str(error))
    found = {
        f"{split}: lines of {file} without an image and an XML file": malformed,
        f"{split}: files that {file} names are not there": missing,
        f"{split}: annotations cannot be used": damaged,
    }
    problems = [Problem(text, True, len(places), tuple(places[:3])) for text, places in found.items() if places]
    return AnnotatedImages(from_voc(pairs, folder, classes), folder), problems
