"""Verifies the checkpoints of a training: their files, their zeros, and that all values are finite."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..pruning.schedule import GMPSchedule
from .position import ResumeState
from .state import TrainingState

_WITH_STATE = (".pdparams", ".pdopt", ".pdscaler", ".pdema", ".pddistill")


def verify_checkpoint(path: Path) -> tuple[ResumeState | None, list[str]]:
    """Verifies one checkpoint.

    Its files must be those that its `.pdsparse` file names, with the digests that are noted there, all values must be
    finite, weights must be zero where the masks prune them, in the network as in the average, and the masks must prune
    as many as the schedule asked for.

    Args:
        path: the `.pdsparse` file.

    Returns:
        The checkpoint, None if it cannot be read, and one line for each problem.
    """
    try:
        found = ResumeState.open(path)
        contents = {suffix: found.arrays(suffix) for suffix in _WITH_STATE if found.has(suffix)}
    except InputError as error:
        return None, [str(error)]
    problems = [
        f"{path}: names {name}, the file of another checkpoint"
        for name in found.state.files
        if Path(name).stem != path.stem
    ]
    if ".pdparams" not in contents:
        problems.append(f"{path}: names no {path.stem}.pdparams")
    for suffix, arrays in contents.items():
        file = path.with_suffix(suffix)
        problems += [f"{file}: {name} is not finite" for name in not_finite(arrays)]
        if suffix in (".pdparams", ".pdema"):
            problems += [f"{file}: {line}" for line in _alive(arrays, found.state.masks)]
    return found, problems + [f"{path}: {line}" for line in _mask_problems(found.state)]


def verify_checkpoints(folder: Path) -> tuple[int, list[str]]:
    """Verifies all checkpoints of a folder, and that they are of one training.

    Args:
        folder: the folder of a `Checkpoints` callback.

    Returns:
        The number of checkpoints, and one line for each problem.
    """
    names = sorted({file.stem for file in folder.iterdir() if file.suffix in (*_WITH_STATE, ".pdsparse")})
    problems, first = [], None
    for name in names:
        path = folder / f"{name}.pdsparse"
        found, own = verify_checkpoint(path)
        problems += own
        if found is None:
            continue
        arrays = found.arrays(".pdparams") if found.has(".pdparams") else {}
        description = {key: np.shape(array) for key, array in arrays.items()}, found.state.settings.get("plan")
        first = first or (path, description)
        if description != first[1]:
            problems.append(f"{path}: a checkpoint of another network or plan than {first[0].name}")
    return len(names), problems


def not_finite(arrays: Mapping[str, Any]) -> list[str]:
    """Returns the names of the floating-point arrays, also in nested dicts, with a value that is not finite."""
    return [name for name, array in _flat(arrays) if array.dtype.kind == "f" and not np.isfinite(array).all()]


def _flat(arrays: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """Yields the arrays of nested dicts, such as the master weights of an optimizer."""
    for name, value in arrays.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, (np.ndarray, np.generic, float)):
            yield f"{prefix}{name}", np.asarray(value)


def _alive(arrays: Mapping[str, Any], masks: Mapping[str, np.ndarray]) -> Iterator[str]:
    """Yields a line for each array that is not zero where a mask prunes it, or lacks."""
    for name, mask in masks.items():
        found = [arrays[key] for key in (name, f"average.{name}", f"own.{name}") if key in arrays]
        for array in found:
            if array.shape != mask.shape:
                yield f"{name} has shape {list(array.shape)}, its mask {list(mask.shape)}"
            elif alive := int(np.count_nonzero(np.asarray(array)[~mask])):
                yield f"{alive} pruned weights of {name} are not zero"
        if not found and not any(key.startswith(("average.", "own.")) for key in arrays):
            yield f"{name} is missing"


def _mask_problems(state: TrainingState) -> Iterator[str]:
    """Yields a line for each group of layers in which the masks prune less than the schedule asked for at this step."""
    plan, schedule = state.settings.get("plan"), state.settings.get("schedule")
    if not plan or not schedule:
        return
    try:
        groups = list(_scheduled_groups(state))
    except (InputError, TypeError, AttributeError, ValueError, KeyError) as error:
        yield f"its settings are not valid: {' '.join(str(error).split())}"
        return
    for names, numel, ratio in groups:
        pruned = sum(int(np.count_nonzero(~state.masks[name])) for name in names if name in state.masks)
        if pruned < ratio * numel - 1e-6:
            which = f"of {names[0]}" if len(names) == 1 else "of the weights"
            yield f"its masks prune {pruned / numel:.4%} {which}, the schedule asked for {ratio:.4%}"
    unknown = sorted(state.masks.keys() - plan.keys())
    if unknown:
        yield f"it has a mask of {unknown[0]}, which is not in its plan"


def _scheduled_groups(state: TrainingState) -> Iterator[tuple[list[str], int, float]]:
    """Yields the layers that reach a ratio together, their weights and the ratio; with scope `uniform`, one by one."""
    plan, own = state.settings["plan"], state.settings.get("ratios") or {}
    if not isinstance(own, dict):
        raise TypeError(f"ratios must be a mapping, got {type(own).__name__}")
    schedule = GMPSchedule(**state.settings["schedule"])
    others = [name for name in plan if name not in own]
    groups = [([name], schedule.with_target(own[name])) for name in plan if name in own]
    is_uniform = state.settings.get("scope") == "uniform"
    groups += [([name], schedule) for name in others] if is_uniform else [(others, schedule)] if others else []
    for names, one in groups:
        yield names, sum(math.prod(plan[name]) for name in names), one.at(state.step - 1) if state.step else 0.0
