"""The `Sparsity` block of a recipe, or PaddleDetection's `UnstructuredPruner`: settings of the pruner and more."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..pruning.config import PruningConfig
from ..utils.files import read_small_text
from ..utils.validation import check_count, check_keys

PRUNING_KEYS = tuple(field.name for field in fields(PruningConfig) if field.name != "skip_params_func")
# Arguments of `TrainingCurves` that the Sparsity block of a recipe may give beside those of the pruner.
LOGGING_KEYS = ("log_freq", "per_layer", "visualdl")
# The scope of a recipe whose ratios are allocated from a measured sensitivity, and the key of that file.
SENSITIVITY = "sensitivity"
# What a recipe may give beside the settings of the pruner: options of the curves, and steps before the training.
OTHER_KEYS = (*LOGGING_KEYS, "permute_channels", "skip_stage_ends", SENSITIVITY)
# Settings of the pruner that the plan of a recipe already reflects.
IN_PLAN = ("skip", "ratios", "blocks")
# Of PaddleDetection's `UnstructuredPruner:`. PaddleSlim prunes squeeze-and-excitation, and PaddleDetection's document
# leaves out what `skip_stage_ends` does, by a list of names in Python.
SLIM_DEFAULTS = {"prune_squeeze_excite": True, "skip_stage_ends": True}


def pop_sparsity(content: dict[str, Any]) -> dict[str, Any] | None:
    """Removes both blocks from a recipe's content, and returns them as one; None without a block.

    Raises:
        InputError: a block is no mapping, or has an unknown key.
    """
    blocks = [SLIM_DEFAULTS] if "UnstructuredPruner" in content else []
    blocks += [content.pop(block) for block in ("UnstructuredPruner", "Sparsity") if block in content]
    for block in blocks:
        if not isinstance(block, dict):
            raise InputError(f"the Sparsity block must be a mapping, got {block!r}")
        check_keys(block, [*PRUNING_KEYS, *OTHER_KEYS], "Sparsity")
    return {key: value for block in blocks for key, value in block.items()} if blocks else None


def check_others(sparsity: dict[str, Any]) -> None:
    """Checks the values of `OTHER_KEYS` in a Sparsity block.

    Raises:
        InputError: a value is of the wrong type or out of range.
    """
    check_count("log_freq", sparsity.get("log_freq", 1), least=1)
    for key in ("per_layer", "visualdl", "permute_channels", "skip_stage_ends"):
        if not isinstance(sparsity.get(key, False), bool):
            raise InputError(f"{key} must be true or false, got {sparsity[key]!r}")
    file = sparsity.get(SENSITIVITY, "file")
    if not isinstance(file, str) or not file:
        raise InputError(f"{SENSITIVITY} must be the name of a file, got {file!r}")
    if sparsity.get("scope") == SENSITIVITY and sparsity.get("ratios"):
        raise InputError(f"ratios: scope {SENSITIVITY} decides them; leave ratios or this scope out")


def pruner_settings(sparsity: dict[str, Any]) -> dict[str, Any]:
    """Returns the values of a Sparsity block that are settings of the pruner.

    The ratios of scope `sensitivity` are part of the plan; to the pruner it is `uniform`.
    """
    settings = {key: value for key, value in sparsity.items() if key not in OTHER_KEYS}
    return {**settings, "scope": "uniform"} if settings.get("scope") == SENSITIVITY else settings


def training_settings(sparsity: dict[str, Any]) -> dict[str, Any]:
    """Returns the values of a Sparsity block that a `SparsityCallback` with the plan of the recipe takes."""
    return {key: value for key, value in pruner_settings(sparsity).items() if key not in IN_PLAN}


def sensitivity_file(sparsity: dict[str, Any] | None, output: Path) -> Path:
    """Returns the file that the key `sensitivity` names, or else the one in the output folder of a recipe."""
    return Path((sparsity or {}).get(SENSITIVITY) or output / "sensitivity.json")


def sensitivity_content(sparsity: dict[str, Any] | None, output: Path) -> list[str]:
    """Returns the content of that file if it decides the ratios of a recipe, for the recipe's digest.

    A file that cannot be used is an error where the ratios are allocated.
    """
    if (sparsity or {}).get("scope") != SENSITIVITY:
        return []
    try:
        return [read_small_text(sensitivity_file(sparsity, output))]
    except (OSError, ValueError):
        return []
