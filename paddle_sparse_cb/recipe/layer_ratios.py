"""Ratios of the layers of a recipe, allocated from a measured sensitivity: `scope: sensitivity`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..deploy.lite import constraints as lite
from ..deploy.mnn import constraints as mnn
from ..detection import config
from ..errors import InputError
from ..pruning.allocation import Allocation, allocate_ratios
from ..pruning.min_sparsity import min_sparsity
from ..pruning.plan import PrunePlan
from .schema import Recipe
from .sparsity_block import SENSITIVITY, sensitivity_file


@dataclass(frozen=True)
class Target:
    """What an allocation is to reach; one of the four is given.

    Attributes:
        sparsity: the least share of zeros in the planned weights.
        macs: the multiply-accumulates that remain, at most, as a fraction of the whole dense network's.
        macs_of_ratio: the multiply-accumulates that remain with this ratio in all layers, at most.
        latency: milliseconds of the whole network, at most.
        costs: the `layers.json` that the milliseconds refer to.
    """

    sparsity: float | None = None
    macs: float | None = None
    macs_of_ratio: float | None = None
    latency: float | None = None
    costs: Path | None = None

    def check(self) -> None:
        """Raises InputError unless one target is given, with costs if it is a latency."""
        given = [self.sparsity, self.macs, self.macs_of_ratio, self.latency]
        count = len(given) - given.count(None)
        if count != 1:
            flags = "--target-sparsity, --target-macs, --macs-of-ratio and --target-latency"
            raise InputError(f"give one of {flags}, got {count}")
        if self.costs is not None and self.latency is None:
            raise InputError("--costs is for --target-latency")
        if self.latency is not None and self.costs is None:
            raise InputError("--target-latency needs --costs: a layers.json of paddle-sparse bench RECIPE --layers")

    def arguments(self) -> dict[str, Any]:
        """Returns the target as arguments of `allocate_ratios`."""
        return {
            "target_sparsity": self.sparsity,
            "target_macs": self.macs,
            "macs_of_ratio": self.macs_of_ratio,
            "target_latency": self.latency,
            "costs": self.costs,
        }


def without_ratios(recipe: Recipe) -> Recipe:
    """Returns a recipe whose layers have no ratios of their own, to measure or to allocate them.

    Raises:
        InputError: the recipe is dense.
    """
    if recipe.sparsity is None:
        raise InputError("a dense recipe prunes no layers; it has no Sparsity block")
    sparsity = {key: value for key, value in recipe.sparsity.items() if key != "ratios"}
    if sparsity.get("scope") == SENSITIVITY:
        sparsity["scope"] = "uniform"
    return replace(recipe, sparsity=sparsity)


def allocate_plan(recipe: Recipe, plan: PrunePlan) -> PrunePlan:
    """Returns a plan with the ratios that follow from `Sparsity: {scope: sensitivity}` and its `ratio`.

    Raises:
        InputError: the sensitivity was not measured for this network, or the ratio cannot be reached.
    """
    target = Target(sparsity=recipe.pruning_config().ratio)
    with config.prefix_errors(f"scope: {SENSITIVITY}"):
        ratios = allocate(recipe, plan, target).ratios
    return PrunePlan(
        tuple(
            replace(layer, ratio=ratios[layer.name])
            if ratios.get(layer.name)
            else replace(layer, pruned=False, reason=layer.reason or f"ratio 0 by scope {SENSITIVITY}")
            for layer in plan.layers
        )
    )


def allocate(recipe: Recipe, plan: PrunePlan, target: Target) -> Allocation:
    """Allocates ratios to the layers of a recipe's plan, at which the runtimes of the recipe run them sparse.

    Raises:
        InputError: see `allocate_ratios`.
    """
    path = sensitivity_file(recipe.sparsity, recipe.output)
    return allocate_ratios(path, **target.arguments(), plan=plan, allows=runs_sparse(recipe, plan))


def runs_sparse(recipe: Recipe, plan: PrunePlan) -> Callable[[str, float], bool]:
    """Returns a function of name and ratio: whether the runtimes of a recipe run this layer sparse at this ratio."""
    dense: dict[float, Mapping[str, str]] = {}

    def allows(name: str, ratio: float) -> bool:
        if ratio not in dense:
            uniform = PrunePlan(tuple(replace(layer, ratio=ratio) for layer in plan.pruned))
            least = min_sparsity(uniform, ratio)
            dense[ratio] = lite.find_dense_layers(uniform, least)
            if recipe.mnn_block is not None:
                dense[ratio] = {**dense[ratio], **mnn.find_dense_layers(uniform, least, recipe.mnn_block)}
        return name not in dense[ratio]

    return allows
