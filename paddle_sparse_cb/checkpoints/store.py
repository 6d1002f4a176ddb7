"""Writes checkpoints, each complete or not there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import paddle

from ..pruning.state import PrunerState
from ..utils.files import atomic_replace, remove_stale_scratch, scratch_folder
from ..utils.finite import check_finite
from .position import CHECKPOINT_NAME
from .state import TrainingState, file_digest, save_state


def save_checkpoint(
    folder: Path,
    name: str,
    model: paddle.Model,
    training: dict[str, Any],
    pruner: PrunerState | None = None,
    arrays: Mapping[str, Mapping[str, paddle.Tensor]] | None = None,
) -> Path:
    """Writes a checkpoint: `.pdparams`, `.pdopt`, `.pdscaler`, further arrays, and last `.pdsparse` with the digests.

    Args:
        folder: created if needed.
        name: the name of the files, without a suffix.
        model: a prepared model.
        training: plain values to keep in the state: epoch, batch and the like.
        pruner: the state of the pruner, if there is one.
        arrays: further arrays to save, by the suffix of their file, such as `.pdema`.

    Returns:
        The `.pdsparse` file.

    Raises:
        DivergenceError: the network is not finite; earlier checkpoints are kept.
        OSError: the disk is full, for example; earlier checkpoints are kept.
    """
    check_finite(model.network, f"{folder / name} is not saved")
    try:
        return _write(folder, name, model, training, pruner or PrunerState(0, {}, {}), arrays or {})
    except OSError as error:
        error.filename = error.filename or str(folder / name)
        raise


def _write(
    folder: Path,
    name: str,
    model: paddle.Model,
    training: dict[str, Any],
    pruner: PrunerState,
    arrays: Mapping[str, Mapping[str, paddle.Tensor]],
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with scratch_folder(folder, "saving") as scratch:
        model.save(str(scratch / name))
        _add_pending_moments(model._optimizer, scratch / f"{name}.pdopt")
        for suffix, tensors in arrays.items():
            # As arrays: a tensor would be saved with its name, which depends on what the process did before.
            paddle.save({key: tensor.numpy() for key, tensor in tensors.items()}, str(scratch / f"{name}{suffix}"))
        files = sorted(scratch.iterdir())
        digests = {file.name: file_digest(file) for file in files}
        for file in files:  # .pdparams comes after the others: when it is there, all of them are
            atomic_replace(file, folder / file.name)
    path = folder / f"{name}.pdsparse"
    save_state(TrainingState(pruner.step, pruner.settings, pruner.masks, training, digests), path)
    return path


def _add_pending_moments(optimizer: Any, file: Path) -> None:
    """Adds moments that were loaded and not used in a step yet, which Paddle 2.6 leaves out of an optimizer's state."""
    pending = getattr(optimizer, "_accumulators_holder", None)
    if pending:
        paddle.save({**pending, **optimizer.state_dict()}, str(file))


def remove_partial_writes(folder: Path) -> None:
    """Removes what a killed process left half written."""
    remove_stale_scratch(folder)


def remove_within_epoch(folder: Path, keep: str = "") -> None:
    """Removes the checkpoints that were saved within an epoch, except the one called `keep`."""
    for file in folder.glob("*_*.pd*"):
        if CHECKPOINT_NAME.fullmatch(f"{file.stem}.pdsparse") and file.stem != keep:
            file.unlink()
