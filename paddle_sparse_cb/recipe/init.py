"""`paddle-sparse init`: looks at annotated images and writes two recipes for them, dense and sparse."""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path

import paddle

from ..detection.datasets.folders import AnnotatedFolder, AnnotatedImages, read_folder
from ..detection.datasets.summary import summarize
from ..errors import InputError
from ..utils.files import write_text
from .starter import DataPaths, choose_settings, dense_recipe, sparse_recipe


def init(data: Path, output: Path, name: str | None = None) -> Path:
    """Writes recipes for a folder of annotated images, and prints what it contains and what to do next.

    COCO files are used where they are. Other annotations, and images that nothing divides into a part for the training
    and one for the evaluation, are written as COCO files to `<name>_data` beside the recipes.

    Args:
        data: the folder (see `read_folder`).
        output: the folder of the recipes.
        name: the name of the dense recipe; by default that of the data folder.

    Returns:
        The sparse recipe.

    Raises:
        InputError: there are no annotations, they cannot be used, or a file exists.
    """
    name = name or re.sub(r"[^A-Za-z0-9_-]+", "_", data.resolve().name).strip("_") or "mine"
    if re.search(r"[^A-Za-z0-9_-]", name):
        raise InputError(f"--name must consist of letters, digits, _ and -, got {name!r}")
    dense, sparse = output / f"{name}.yml", output / f"{name}_sparse75.yml"
    for path in (dense, sparse, output / f"{name}_data"):
        if path.exists():
            raise InputError(f"{path} exists; choose another --name or --output")
    found = read_folder(data)
    try:
        train, val = summarize(found.train.content), summarize(found.val.content)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise InputError(f"{data}: the {found.format} annotations cannot be used: {error}") from None
    device = "gpu" if paddle.device.is_compiled_with_cuda() and paddle.device.cuda.device_count() else "cpu"
    settings = choose_settings(train, device, os.cpu_count() or 1)
    paths = _write_annotations(found, data, output / f"{name}_data")
    write_text(dense, dense_recipe(name, train, val, paths, settings))
    write_text(sparse, sparse_recipe(name, settings))
    print(f"{found.format} annotations in {data}:")
    print(f"  training    {train}\n  evaluation  {val}")
    if found.note:
        print(f"  {found.note}")
    print(f"{dense}: dense, {settings.side} x {settings.side} pixels, {settings.epochs} x {settings.steps} steps")
    print(f"{sparse}: 75% sparse, from the dense model\nnext:")
    for command, more in (("check", ""), ("train", ""), ("predict", " IMAGE ... --compare dense")):
        print(f"  paddle-sparse {command} {shlex.quote(str(sparse))}{more}")
    return sparse


def _write_annotations(found: AnnotatedFolder, data: Path, folder: Path) -> DataPaths:
    files = [
        part.file or _write(part, folder / f"{role}.json")
        for role, part in (("train", found.train), ("val", found.val))
    ]
    images = [os.path.relpath(part.images, data) for part in (found.train, found.val)]
    return DataPaths(
        str(data), (images[0], images[1]), (os.path.relpath(files[0], data), os.path.relpath(files[1], data))
    )


def _write(part: AnnotatedImages, path: Path) -> Path:
    write_text(path, json.dumps(part.content))
    return path
