"""`paddle-sparse allocate`: ratios for the layers of a recipe, or of a sensitivity file, as a YAML file."""

from __future__ import annotations

import os
from pathlib import Path

import yaml

from ..pruning.allocation import Allocation, allocate_ratios
from ..utils.files import write_text
from .build import build_plan, naming_recipe
from .layer_ratios import Target, allocate, without_ratios
from .schema import Recipe
from .sparsity_block import sensitivity_file


@naming_recipe
def allocate_recipe(recipe: Recipe, target: Target) -> tuple[Path, Allocation]:
    """Allocates ratios to the layers that a recipe prunes, whatever ratios it gives them itself.

    Returns:
        The file of the sensitivity, and the ratios.

    Raises:
        InputError: the recipe is dense, or see `allocate_ratios`.
    """
    plan = build_plan(without_ratios(recipe))
    return sensitivity_file(recipe.sparsity, recipe.output), allocate(recipe, plan, target)


def allocate_file(path: Path, target: Target) -> Allocation:
    """Allocates ratios to all layers of a sensitivity file, for Paddle-Lite.

    Raises:
        InputError: see `allocate_ratios`.
    """
    return allocate_ratios(path, **target.arguments())


def write_ratios(path: str | os.PathLike[str], allocation: Allocation, source: Path) -> None:
    """Writes ratios as YAML that `--slim_config` or `_BASE_` merges into a recipe."""
    ratios = {"Sparsity": {"ratios": allocation.ratios}}
    text = yaml.safe_dump(ratios, sort_keys=False, allow_unicode=True, width=1000)
    lines = [f"Ratios of single layers, allocated from {source}.", allocation.target]
    comments = "".join(f"# {' '.join(line.split())}\n" for line in lines)
    write_text(path, comments + text)
