"""Collects what `report.html` shows of a run beside the table: data, classes, curves, pictures, sizes and versions."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import paddle

from .._version import __version__
from ..callbacks.tensorboard import read_curves
from ..deploy.manifest import exported_files
from ..detection.evaluation import Evaluation
from ..hooks import HookContext
from .report_pictures import write_pictures

if TYPE_CHECKING:
    from .build import Run

_MAX_POINTS = 200  # of a curve
_TAGS = ("sparsity/actual", "sparsity/target", "train/loss", "eval/mAP", "eval/AP50")
_KINDS = ("dense", "sparse")


def evaluation_file(output: Path, kind: str) -> Path:
    """Returns the file with the evaluation of the `dense` or the `sparse` network."""
    return output / f"evaluation_{kind}.json"


def collect_details(run: Run, context: HookContext) -> dict[str, Any]:
    """Returns the fields of `report.json` that `WriteReport` does not know, and writes the pictures that they name.

    Raises:
        InputError: an earlier evaluation of the network is damaged.
    """
    files = {kind: evaluation_file(context.output, kind) for kind in _KINDS}
    evaluations = {kind: Evaluation.load(file) for kind, file in files.items() if file.is_file()}
    return {
        "data": {split: _describe_data(run, split) for split in ("train", "eval")},
        "classes": _classes(run, evaluations),
        "curves": _curves(run.recipe.curves),
        "pictures": write_pictures(context.output, run.records("train"), run.records("eval"), run.metric, evaluations),
        "sizes": _sizes(context),
        "versions": _versions(),
        "commands": run.commands,
    }


def _labels(records: Sequence[dict[str, Any]]) -> np.ndarray:
    """The class indices of all boxes; none where a configuration leaves them out."""
    parts = [np.asarray(record["gt_class"]).ravel().astype(int) for record in records if "gt_class" in record]
    return np.concatenate(parts) if parts else np.zeros(0, int)


def _describe_data(run: Run, split: str) -> dict[str, Any]:
    records, dataset = run.records(split), run.recipe.content[f"{split.capitalize()}Dataset"]
    folder = dataset.get("dataset_dir") if isinstance(dataset, dict) else getattr(dataset, "dataset_dir", None)
    sizes = [(int(record["w"]), int(record["h"])) for record in records if "w" in record and "h" in record]
    return {
        "folder": str(folder or ""),
        "images": len(records),
        "objects": len(_labels(records)) if split == "train" else sum(run.metric.class_objects),
        "median_size": [int(length) for length in np.median(sizes, axis=0)] if sizes else None,
    }


def _classes(run: Run, evaluations: dict[str, Evaluation]) -> list[dict[str, Any]]:
    names, eval_objects = run.metric.class_names, run.metric.class_objects
    train_objects = np.bincount(_labels(run.records("train")), minlength=len(names)).tolist()
    ap: dict[str, list[float | None]] = {kind: [None] * len(names) for kind in _KINDS}
    for kind, evaluation in evaluations.items():
        if len(evaluation.classes) == len(names):  # else of a recipe with other classes
            ap[kind] = [one.ap for one in evaluation.classes]
    return [
        {
            "name": name,
            "train_objects": train_objects[index],
            "eval_objects": eval_objects[index],
            **{f"{kind}_ap": ap[kind][index] for kind in _KINDS},
        }
        for index, name in enumerate(names)
    ]


def _curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The curves to show, with a limited number of points."""
    read = read_curves(folder)
    return {tag: _thinned(read[tag]) for tag in _TAGS if tag in read}


def _thinned(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    if len(points) <= _MAX_POINTS:
        return points
    return [points[index] for index in np.linspace(0, len(points) - 1, _MAX_POINTS).round().astype(int)]


def _sizes(context: HookContext) -> list[dict[str, Any]]:
    """The sizes of the files that were made, by their paths below the output folder."""
    files = []
    for name, path in context.artefacts.items():
        files += exported_files(path)[:2] if name.startswith("inference") else [path]
    return [{"file": _relative(file, context.output), "bytes": file.stat().st_size} for file in files if file.is_file()]


def _relative(file: Path, folder: Path) -> str:
    inside = folder.resolve() in file.resolve().parents
    return file.resolve().relative_to(folder.resolve()).as_posix() if inside else file.name


def _versions() -> dict[str, str]:
    return {
        "paddle_sparse_cb": __version__,
        "Paddle": paddle.__version__,
        "NumPy": np.__version__,
        "Python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "device": paddle.get_device(),
    }
