"""Annotations in COCO's format: one JSON file. `voc` has the same functions for its format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def finish(dataset: Any) -> None:
    """Completes the records of a parsed data set; nothing to do for COCO."""


def classes(dataset: Any) -> tuple[str, Mapping[Any, int]]:
    """Returns the file that defines the classes of a parsed data set, and the number of each of these classes."""
    return str(dataset.get_anno()), dataset.catid2clsid


def invalid_files(dataset: Any) -> str:
    """Names the files to look at if a data set cannot be parsed."""
    return str(dataset.get_anno())


def ground_truth(dataset: Any) -> str:
    """Returns the annotation file, which pycocotools reads itself."""
    return str(dataset.get_anno())
