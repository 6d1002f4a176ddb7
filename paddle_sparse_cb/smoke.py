"""A recipe cut down to a few steps on packaged photographs, so that it can be tried before its data are there."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from .detection import samples
from .files import write_text
from .recipe import Recipe

IMAGES = {"Train": 8, "Eval": 2}
BATCH = 2
EPOCHS = 2
SIZE = 256  # pixels in training; evaluation and export keep the recipe's
RATE = 1e-3  # a rate for batches of 128 lets batches of 2 diverge
# Optimizer steps; two ranks have two an epoch.
SCHEDULE = {"stable_iterations": 0, "pruning_iterations": 2, "tunning_iterations": 1, "pruning_steps": 2}


def smoke(recipe: Recipe) -> Recipe:
    """Cuts a recipe down: the same network, transforms and export, but other data and next to no training.

    The photographs are of trees, which get the first class of the recipe's data set. The annotations lie in the
    recipe's output folder, which is one of its own.

    Args:
        recipe: any recipe.

    Returns:
        A recipe for `run.train` that ends with all files of the original, made of weights that mean nothing.
    """
    content = copy.deepcopy(recipe.content)
    small = replace(recipe, content=content, sparsity=_sparsity(recipe.sparsity), cut_down=True)
    content.update(epoch=EPOCHS, snapshot_epoch=EPOCHS, worker_num=0, metric="COCO", log_iter=1)
    content["LearningRate"]["base_lr"] = RATE
    for split, limit in IMAGES.items():
        content[f"{split}Dataset"] = _dataset(small.output / "data", split, limit, content["num_classes"])
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


def _dataset(folder: Path, split: str, limit: int, classes: int) -> dict[str, Any]:
    """A few of the photographs' tiles, annotated as of a data set with so many classes."""
    trees = samples.resolve("trees_256")
    annotations = json.loads((trees / {"Train": "train.json", "Eval": "val.json"}[split]).read_text())
    annotations["categories"] += [{"id": number, "name": f"class {number}"} for number in range(2, classes + 1)]
    file = folder / f"{split}.json"
    write_text(file, json.dumps(annotations))
    dataset = {"name": "COCODataSet", "dataset_dir": str(trees), "image_dir": "images",
               "anno_path": str(file.resolve()), "sample_num": limit}
    if split == "Train":
        return {**dataset, "data_fields": ["image", "gt_bbox", "gt_class", "is_crowd"]}
    return {**dataset, "allow_empty": True}


def _is_here(source: str) -> bool:
    """Whether weights can be had without a download or another training."""
    return source.startswith("sample:") or Path(source).is_file() or Path(f"{source}.pdparams").is_file()
