"""A recipe's training that goes on from a checkpoint: which one, whether it is of this recipe, and where it was."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..callbacks.resume import TrainingPosition
from ..checkpoints.state import PruningState, check_same, load_state
from ..checkpoints.store import last_checkpoint, read_position
from ..errors import InputError
from ..utils.distributed import is_rank_zero, rank_zero_info
from .schema import Recipe

LAST = "last"
# What may be another way in a training that goes on: where files lie, what is said and saved, and what follows.
_FREE = {"save_dir", "log_iter", "worker_num", "snapshot_iter", "export", "weights", "pretrain_weights",
         "resume_weights", "print_flops", "print_params", "TestDataset", "TestReader"}
_FREE_SPARSITY = {"log_freq", "per_layer"}


@dataclass(frozen=True)
class Checkpoint:
    """Where a training goes on.

    Attributes:
        path: the `.pdsparse` file.
        state: what it holds.
    """

    path: Path
    state: PruningState

    @property
    def dense(self) -> dict[str, float]:
        """What was measured before the pruning."""
        return dict(self.state.training.get("dense") or {})

    def place(self, batches: int, changed: bool = False) -> TrainingPosition:
        """The place to go on from.

        Args:
            batches: of an epoch of the training that goes on.
            changed: epochs may have other lengths than the checkpoint's.

        Raises:
            InputError: they have, and the checkpoint is not of an epoch's end.
        """
        place, before = read_position(self.path), self.state.training.get("batches")
        if batches == before or not changed:  # where it is an error, the loading says so
            return place
        if place.batch != before:
            raise InputError(f"{self.path}: it was saved after {place.batch} of {before} batches of epoch "
                             f"{place.epoch}, and this training has {batches} in an epoch: go on from a checkpoint of "
                             "an epoch's end")
        return TrainingPosition(place.epoch, batches)


def folder(recipe: Recipe) -> Path:
    """Where a recipe's checkpoints are."""
    return recipe.weights.parent


def checkpoint_metadata(recipe: Recipe, dense: dict[str, float]) -> dict[str, Any]:
    """What a recipe's checkpoints have to say: the recipe, to be compared, and what was measured before the pruning."""
    return {"recipe": _plain(recipe), "dense": dense}


def _plain(recipe: Recipe) -> Any:
    content = {key: value for key, value in recipe.content.items() if key not in _FREE}
    sparsity = {key: value for key, value in (recipe.sparsity or {}).items() if key not in _FREE_SPARSITY}
    return json.loads(json.dumps({**content, "Sparsity": sparsity}, default=vars))


def find(recipe: Recipe, resume: str | None, changed: bool = False) -> Checkpoint | None:
    """Finds the checkpoint that a recipe is to go on from, and says so.

    Args:
        recipe: the recipe.
        resume: a checkpoint with or without an ending, a folder of them, or `LAST`; None is a new training.
        changed: the checkpoint may be of another recipe.

    Returns:
        The checkpoint; None where there is none to go on from.

    Raises:
        InputError: the one that was named is missing or damaged, or the recipe is not the one that it was made by.
    """
    if resume is None:
        return None
    path = last_checkpoint(folder(recipe), say) if resume == LAST else _named(resume)
    if path is None:
        rank_zero_info(f"no whole checkpoint in {folder(recipe)}: from the begin")
        return None
    found = Checkpoint(path, load_state(path))
    if not changed:
        check_same(found.state.training.get("recipe") or {}, _plain(recipe), path)
    training = found.state.training
    rank_zero_info(f"going on from {path}: {training.get('batch')} of {training.get('batches')} batches of epoch "
        f"{training.get('epoch')} are done")
    return found


def _named(resume: str) -> Path:
    path = Path(resume)
    if path.is_dir():
        newest = last_checkpoint(path, say)
        if newest is None:
            raise InputError(f"--resume {resume}: no whole checkpoint in this folder")
        return newest
    if path.suffix in (".pdparams", ".pdopt", ".pdema", ".pdsparse"):
        path = path.with_suffix("")
    path = path.with_name(f"{path.name}.pdsparse")
    if not path.is_file():
        raise InputError(f"--resume {resume}: there is no {path}, the state of a training")
    return path


def archive_previous(recipe: Recipe) -> None:
    """Sets the checkpoints of an earlier training aside, on rank 0: a kill must not make one training out of two."""
    checkpoints = folder(recipe)
    if is_rank_zero() and checkpoints.is_dir():
        earlier = checkpoints.with_name("checkpoints.earlier")
        if earlier.exists():
            shutil.rmtree(earlier)
        os.rename(checkpoints, earlier)
        if not (earlier / "final.pdparams").is_file():
            rank_zero_info(f"{earlier} has the checkpoints of a training that was interrupted; --resume {earlier} goes on with it")
