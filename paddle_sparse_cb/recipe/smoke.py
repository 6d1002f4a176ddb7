"""Reduces a recipe to a few steps on packaged photographs, to try it before its data are available."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..detection.datasets import samples
from ..utils.files import write_text
from .schema import Recipe

_TREES = "trees_256"
IMAGES = {"Train": 8, "Eval": 2}
BATCH = 2
EPOCHS = 2
SIZE = 256  # pixels in training; evaluation and export keep the size of the recipe
RATE = 1e-3  # with a rate for batches of 128, batches of 2 diverge
# Optimizer steps; with two ranks an epoch has two.
SCHEDULE = {"stable_iterations": 0, "pruning_iterations": 2, "tunning_iterations": 1, "pruning_steps": 2}


def smoke(recipe: Recipe) -> Recipe:
    """Reduces a recipe: the same network, transforms and export, but other data and almost no training.

    Nothing is written or downloaded here; `write_annotations` writes the annotations that the new recipe names.

    Args:
        recipe: any recipe.

    Returns:
        A recipe that produces all files of the original; its weights are meaningless.
    """
    content = copy.deepcopy(recipe.content)
    small = replace(recipe, content=content, sparsity=_sparsity(recipe.sparsity), is_smoke=True)
    content["export"] = {**(content.get("export") or {}), "bench": False}  # takes longer than everything else
    content.update(epoch=EPOCHS, snapshot_epoch=EPOCHS, worker_num=0, metric="COCO", log_iter=1)
    content["LearningRate"]["base_lr"] = RATE
    for split, limit in IMAGES.items():
        content[f"{split}Dataset"] = _dataset(_annotations(small, split), split, limit)
        content[f"{split}Reader"]["batch_size"] = BATCH
    for transform in content["TrainReader"].get("batch_transforms", []):
        if "BatchRandomResize" in transform:
            transform["BatchRandomResize"]["target_size"] = [SIZE]
    if not _is_here(content.get("pretrain_weights") or ""):
        content["pretrain_weights"] = None
    return small


def _sparsity(sparsity: dict[str, Any] | None) -> dict[str, Any] | None:
    if sparsity is None:
        return None
    lengths = [f"{phase}_epochs" for phase in ("stable", "pruning", "tunning")]
    return {**{key: value for key, value in sparsity.items() if key not in lengths}, **SCHEDULE}


def write_annotations(small: Recipe) -> None:
    """Writes the annotations of a reduced recipe to its output folder.

    The photographs show trees, which are annotated with the first class of the recipe's data set.
    """
    trees = samples.resolve(_TREES)
    for split, file in {"Train": "train.json", "Eval": "val.json"}.items():
        annotations = json.loads((trees / file).read_text())
        annotations["categories"] += [
            {"id": number, "name": f"class {number}"} for number in range(2, small.content["num_classes"] + 1)
        ]
        write_text(_annotations(small, split), json.dumps(annotations))


def _annotations(small: Recipe, split: str) -> Path:
    return (small.output / "data" / f"{split}.json").resolve()


def _dataset(annotations: Path, split: str, limit: int) -> dict[str, Any]:
    dataset = {
        "name": "COCODataSet",
        "dataset_dir": f"sample:{_TREES}",
        "image_dir": "images",
        "anno_path": str(annotations),
        "sample_num": limit,
    }
    if split == "Train":
        return {**dataset, "data_fields": ["image", "gt_bbox", "gt_class", "is_crowd"]}
    return {**dataset, "allow_empty": True}


def _is_here(source: str) -> bool:
    """Returns whether weights are available without a download or another training."""
    return source.startswith("sample:") or Path(source).is_file() or Path(f"{source}.pdparams").is_file()
