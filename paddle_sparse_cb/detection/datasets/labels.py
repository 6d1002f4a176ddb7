"""The class names of a configuration, read without its images."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...utils.files import valid_text
from .. import compat
from . import samples

# Unicode categories of what a terminal must not be sent, and a name in one line does not have.
UNSAFE_CATEGORIES = ("Cc", "Cs", "Zl", "Zp")


def clean_name(name: object) -> str:
    """Returns a name in one line: control characters, which come with the lines of a file for example, are spaces."""
    letters = (" " if unicodedata.category(letter) in UNSAFE_CATEGORIES else letter for letter in valid_text(str(name)))
    return "".join(letters).strip()


def class_names(content: dict[str, Any]) -> tuple[str, ...]:
    """Reads the names of the classes of a configuration, in the order of their numbers.

    They come from the annotations (COCO) or the label list (VOC) of `EvalDataset`, or else from the file that
    `TestDataset.anno_path` names. If there is no such file, they are COCO's or Pascal VOC's own if the number of
    classes is theirs, as in PaddleDetection.

    Args:
        content: the blocks of a recipe.

    Raises:
        InputError: there are no names, they cannot be read, or their number is not `num_classes`.
    """
    count = content["num_classes"]
    files = [file for block in ("EvalDataset", "TestDataset") for file in _file_with_names(content.get(block))]
    source = next((file for file in files if file.is_file()), None)
    if source is not None:
        names = _read(source)
        if len(names) != count:
            raise InputError(f"num_classes is {count}, but {source} has {len(names)} categories")
        return names
    names = _default_names("VOC" if _format(content.get("EvalDataset")) == "VOCDataSet" else "COCO")
    if len(names) != count:
        missing = " nor ".join(map(str, files)) or "EvalDataset"
        raise InputError(
            f"no class names: {missing} does not exist; TestDataset.anno_path can name a file with one class per line"
        )
    return names


def _read(path: Path) -> tuple[str, ...]:
    try:
        if path.suffix == ".txt":
            return tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
        categories = json.loads(path.read_bytes())["categories"]
        return tuple(clean_name(category["name"]) for category in categories)
    except (LookupError, RecursionError, TypeError, ValueError) as error:
        raise InputError(f"{path}: has no class names: {type(error).__name__} {error}") from None


def _default_names(metric: str) -> tuple[str, ...]:
    compat.import_ppdet()
    from ppdet.data.source.category import get_categories

    return tuple(get_categories(metric)[1].values())


def _settings(block: Any) -> dict[str, Any]:
    """The settings of a data set, which is a mapping or what a tag such as !ImageFolder creates."""
    if block is None or isinstance(block, dict):
        return block or {}
    return {**vars(block), "name": type(block).__name__}


def _format(block: Any) -> str:
    return str(_settings(block).get("name"))


def _file_with_names(block: Any) -> list[Path]:
    settings = _settings(block)
    name = settings.get("label_list" if _format(block) == "VOCDataSet" else "anno_path")
    folder = settings.get("dataset_dir") or ""
    if not isinstance(name, str) or not isinstance(folder, str):
        return []
    if folder.startswith("sample:"):
        folder = str(samples.resolve(folder[len("sample:") :]))
    return [Path(folder, name)]
