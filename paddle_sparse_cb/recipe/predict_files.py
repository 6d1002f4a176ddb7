"""`paddle-sparse predict`: boxes in image files, as pictures and as JSON."""

from __future__ import annotations

import contextlib
import glob
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..detection.datasets.images import check_image
from ..detection.drawing import draw_boxes, put_side_by_side
from ..detection.pictures import encode_jpeg
from ..detection.predict import Box, read_image
from ..errors import InputError
from ..utils.files import atomic_write, valid_text
from ..utils.text import one_line
from ..utils.validation import check_fraction
from .catalogue import find_recipe
from .predict import Detector, find_model
from .schema import read_recipe

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
OUTPUT = Path("output", "predictions")
DENSE = "dense"
_SHOWN = 4  # boxes in the line of an image
_JPEG_QUALITY = 92


@dataclass(frozen=True)
class PredictOptions:
    """How images are predicted.

    Attributes:
        model: a recipe or an exported model (`Detector`).
        compare: another one, whose boxes are drawn beside; `dense` is the dense recipe that a recipe starts from, and a
            `.pdparams` file holds other weights of the recipe.
        threshold: the least score of a box; by default that of the model.
        output: the folder of the pictures; None writes no pictures.
        as_json: print JSON and nothing else on standard output.
        options: values that replace the recipe's.
        export: the checkpoint to use, `best` or `last`.
        slim_config: a file to merge over the recipe.
    """

    model: str
    compare: str | None = None
    threshold: float | None = None
    output: Path | None = OUTPUT
    as_json: bool = False
    options: Sequence[str] = field(default_factory=tuple)
    export: str | None = None
    slim_config: str | None = None


def predict_files(images: Sequence[str], options: PredictOptions) -> None:
    """Finds the objects in image files, writes pictures, and prints a line for each image, or JSON.

    All files are looked at before the model is loaded, so that a bad one is an error at once.

    Args:
        images: files, folders (the images in them) and glob patterns.
        options: see `PredictOptions`.

    Raises:
        InputError: no images, an image that cannot be read, or a model that cannot be used; after all other images are
            predicted, if one cannot be decoded.
    """
    if options.threshold is not None:
        check_fraction("--threshold", options.threshold)
    files = find_images(images)
    for file in files:
        try:
            check_image(file.read_bytes())
        except ValueError as error:
            raise InputError(f"{file}: {error}") from None
    targets = _picture_files(files, options.output) if options.output else [None] * len(files)
    with contextlib.redirect_stdout(sys.stderr) if options.as_json else contextlib.nullcontext():
        results = _predict_all(files, targets, options)
    if options.as_json:
        print(json.dumps(results, indent=1))
    failed = sum("error" in result for result in results)
    if failed:
        raise InputError(f"{failed} of {len(files)} images cannot be decoded")


def find_images(names: Sequence[str]) -> list[Path]:
    """Returns the image files that files, folders and glob patterns name, each once, in this order.

    Raises:
        InputError: a name stands for no image.
    """
    found: dict[Path, None] = {}
    for name in names:
        path = Path(name)
        if path.is_dir():
            files = [file for file in sorted(path.iterdir()) if file.suffix.lower() in SUFFIXES and file.is_file()]
        elif path.exists():
            files = [path] if path.is_file() else []
        else:
            matches = (Path(match) for match in sorted(glob.glob(name, recursive=True)))
            files = [file for file in matches if file.suffix.lower() in SUFFIXES and file.is_file()]
        if not files:
            raise InputError(f"{name}: no image file, folder with images ({', '.join(SUFFIXES)}) or pattern that fits")
        found.update(dict.fromkeys(files))
    return list(found)


def _picture_files(files: Sequence[Path], folder: Path) -> list[Path]:
    """Returns a file in the folder for each image; images of equal names get numbers."""
    names: dict[str, None] = {}
    for file in files:
        name, number = f"{file.stem}.jpg", 1
        while name in names:
            number += 1
            name = f"{file.stem}_{number}.jpg"
        names[name] = None
    targets = [folder / name for name in names]
    taken, sources = {file.resolve() for file in files}, {file.resolve().parent for file in files}
    for target in targets:
        if target.resolve() in taken:
            raise InputError(f"--output {folder}: {target} is one of the images; choose another folder")
        if target.exists() and folder.resolve() in sources:
            raise InputError(f"--output {folder}: {target} exists in a folder of the images; choose another folder")
    return targets


def _predict_all(
    files: Sequence[Path], targets: Sequence[Path | None], options: PredictOptions
) -> list[dict[str, Any]]:
    detectors = _open(options)
    least = detectors[0].threshold if options.threshold is None else options.threshold
    results: list[dict[str, Any]] = []
    done, counts, highest, seconds = 0, 0, 0.0, 0.0
    for file, target in zip(files, targets):
        try:
            pixels = read_image(file)
        except InputError as error:
            results.append({"image": valid_text(str(file)), "error": one_line(str(error))})
            print(one_line(str(error)), file=sys.stderr, flush=True)
            continue
        start = time.perf_counter()
        all_boxes = [detector.predict(pixels, 0.0) for detector in detectors]
        seconds += time.perf_counter() - start
        boxes = [[box for box in found if box.score >= least] for found in all_boxes]
        highest = max([highest, *(box.score for box in all_boxes[0])])
        counts += len(boxes[0])
        done += 1
        results.append(_result(file, boxes))
        if target is not None:
            _write_picture(target, _picture(pixels, boxes, detectors, options))
        print(one_line(f"{file}: {_summary(boxes[0])}{f' -> {target}' if target else ''}"), flush=True)
    if done:
        print(f"{done} images, {counts} boxes of score {least:g} or more, {seconds / done:.2f} s per image")
    if done and not counts:
        print(f"the highest score is {highest:.2f}: --threshold {max(0.01, highest - 0.05):.2f} shows more")
    return results


def _open(options: PredictOptions) -> list[Detector]:
    keywords: dict[str, Any] = {"export": options.export, "slim_config": options.slim_config}
    first, other = options.model, options.compare
    if other == DENSE:
        is_recipe = find_model(first) is None
        recipe = read_recipe(find_recipe(first), options.slim_config, options.options) if is_recipe else None
        if recipe is None or recipe.dense is None:
            raise InputError(f"--compare {DENSE}: {first} is not a recipe that starts from a dense one (recipe:FILE)")
        return [Detector.of_recipe(recipe, options.export), Detector.of_recipe(recipe.dense)]
    detector = Detector(first, options=options.options, **keywords)
    if other is None:
        return [detector]
    if other.endswith(".pdparams"):
        return [detector, Detector(first, options=[*options.options, f"weights={other}"], **keywords)]
    return [detector, Detector(other)]


def _result(file: Path, boxes: Sequence[Sequence[Box]]) -> dict[str, Any]:
    listed = [[box.to_dict() for box in found] for found in boxes]
    return {"image": valid_text(str(file)), **dict(zip(("boxes", "compared_boxes"), listed))}


def _summary(boxes: Sequence[Box]) -> str:
    shown = ", ".join(f"{box.label} {box.score:.2f}" for box in boxes[:_SHOWN])
    more = ", ..." if len(boxes) > _SHOWN else ""
    return f"{len(boxes)} boxes" + (f" ({shown}{more})" if boxes else "")


def _picture(
    pixels: np.ndarray, boxes: Sequence[Sequence[Box]], detectors: Sequence[Detector], options: PredictOptions
) -> np.ndarray:
    """Draws the boxes; those of a dense model, or of the other one, to the left of the first one's."""
    pictures = [
        draw_boxes(pixels, [(detector.labels.index(box.label), box.score, *box.box) for box in found], detector.labels)
        for found, detector in zip(boxes, detectors)
    ]
    if options.compare is None:
        return pictures[0]
    given = [options.model, options.compare]
    names = [Path(name).stem for name in given]
    titles = [f"{name}: {len(found)} boxes" for name, found in zip(names if len(set(names)) == 2 else given, boxes)]
    return put_side_by_side(titles[::-1], pictures[::-1])


def _write_picture(target: Path, picture: np.ndarray) -> None:
    with atomic_write(target) as scratch:
        scratch.write_bytes(encode_jpeg(picture, _JPEG_QUALITY).content)
