"""Finds the checkpoint that the training of a recipe resumes from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..checkpoints.position import ResumeState, find_checkpoint
from ..errors import InputError
from ..utils.distributed import rank_zero_info
from ..utils.validation import check_same
from .schema import Recipe

LAST = "last"
# What a resumed run may change: paths, logging, what is saved, and what follows the training.
_FREE = {
    "save_dir",
    "log_iter",
    "worker_num",
    "snapshot_iter",
    "export",
    "weights",
    "pretrain_weights",
    "resume_weights",
    "print_flops",
    "print_params",
    "TestDataset",
    "TestReader",
}
_FREE_SPARSITY = {"log_freq", "per_layer", "visualdl"}


def checkpoint_metadata(recipe: Recipe, dense: dict[str, float], dense_note: str = "") -> dict[str, Any]:
    """Returns what the checkpoints of a recipe keep: the recipe, to be compared, and the dense baseline."""
    return {"recipe": _plain(recipe), "dense": dense, "dense_note": dense_note}


def _plain(recipe: Recipe) -> Any:
    content = {key: value for key, value in recipe.content.items() if key not in _FREE}
    sparsity = {key: value for key, value in (recipe.sparsity or {}).items() if key not in _FREE_SPARSITY}
    learned = {"Distillation": recipe.distillation} if recipe.distillation else {}
    return json.loads(json.dumps({**content, "Sparsity": sparsity, **learned}, default=vars))


def find_resume_state(recipe: Recipe, resume: str | None, allow_config_change: bool = False) -> ResumeState | None:
    """Finds the checkpoint that a recipe resumes from, and prints which one it is.

    Args:
        recipe: the recipe.
        resume: a checkpoint with or without a suffix, a folder of checkpoints, or `LAST`; None is a new training.
        allow_config_change: the checkpoint may belong to another recipe.

    Returns:
        The verified checkpoint; None if there is none to resume from.

    Raises:
        InputError: the named checkpoint is missing or damaged, or it belongs to another recipe.
    """
    if resume is None:
        return None
    found = find_checkpoint(recipe.checkpoints, rank_zero_info) if resume == LAST else _open(resume)
    if found is None:
        rank_zero_info(f"no complete checkpoint in {recipe.checkpoints}: starting from the beginning")
        return None
    training = found.state.training
    if not allow_config_change:
        check_same(training.get("recipe") or {}, _plain(recipe), found.path)
    rank_zero_info(
        f"resuming from {found.path}: {found.position.batch} of {training.get('batches')} batches of epoch "
        f"{found.position.epoch} are completed"
    )
    return found


def _open(resume: str) -> ResumeState:
    path = Path(resume)
    if path.is_dir():
        newest = find_checkpoint(path, rank_zero_info)
        if newest is None:
            raise InputError(f"--resume {resume}: no complete checkpoint in this folder")
        return newest
    if path.suffix in (".pdparams", ".pdopt", ".pdema", ".pddistill", ".pdsparse"):
        path = path.with_suffix("")
    path = path.with_name(f"{path.name}.pdsparse")
    if not path.is_file():
        raise InputError(f"--resume {resume}: {path} does not exist")
    return ResumeState.open(path)


def can_resume(recipe: Recipe) -> bool:
    """Returns whether the recipe, or the dense recipe that it starts from, has a complete checkpoint."""

    def ignore(message: str) -> None:
        """Incomplete checkpoints are reported when the training resumes."""

    below = [recipe]
    while below[-1].dense:
        below.append(below[-1].dense)
    return any(find_checkpoint(one.checkpoints, ignore) is not None for one in below)
