"""The class names of a configuration, read without its images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...utils.text import one_line
from .. import compat
from ..config import block_settings
from . import samples


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
            lines = map(one_line, path.read_text(encoding="utf-8").split("\n"))
            return tuple(line for line in lines if line)
        categories = json.loads(path.read_bytes())["categories"]
        return tuple(one_line(str(category["name"])) for category in categories)
    except (LookupError, RecursionError, TypeError, ValueError) as error:
        raise InputError(f"{path}: has no class names: {type(error).__name__} {error}") from None


def _default_names(metric: str) -> tuple[str, ...]:
    compat.import_ppdet()
    from ppdet.data.source.category import get_categories

    return tuple(get_categories(metric)[1].values())


def _format(block: Any) -> str:
    return str(block_settings(block).get("name"))


def _file_with_names(block: Any) -> list[Path]:
    settings = block_settings(block)
    name = settings.get("label_list" if _format(block) == "VOCDataSet" else "anno_path")
    folder = settings.get("dataset_dir") or ""
    if not isinstance(name, str) or not isinstance(folder, str):
        return []
    if folder.startswith("sample:"):
        folder = str(samples.resolve(folder[len("sample:") :]))
    return [Path(folder, name)]
