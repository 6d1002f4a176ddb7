"""The sparsity that layers are certain to reach at the target ratio, known before training."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..errors import InputError
from .distribution import check_scope, layer_ratios
from .masks import count_units, prune_count
from .plan import PrunePlan


def min_sparsity(
    plan: PrunePlan, ratio: float, scope: str = "uniform", block: tuple[int, int] = (1, 1)
) -> dict[str, float]:
    """Returns the least share of zeros of each planned weight at the target ratio, whatever the weights' values are.

    Args:
        plan: the layers to prune.
        ratio: the target ratio.
        scope: one of `distribution.SCOPES`. With `global`, one ranking over all layers decides, and no layer is certain
            of any zeros.
        block: rows and columns of the blocks that are pruned as one. If it does not divide a layer, the blocks at the
            edges are smaller; the result assumes that those are pruned first.

    Returns:
        Structured name to the least share of zeros.

    Raises:
        InputError: an unknown scope.

    Example:
        >>> from paddle import nn
        >>> from paddle_sparse_cb import make_plan
        >>> min_sparsity(make_plan(nn.Conv2D(8, 12, 1)), 0.75, block=(8, 1))
        {'weight': 0.6666666666666666}
    """
    ratios = layer_ratios([layer.shape for layer in plan.pruned], ratio, check_scope(scope) or "uniform")
    return {
        layer.name: _count_min_zeros([layer.shape], layer_ratio, block) / math.prod(layer.shape)
        for layer, layer_ratio in zip(plan.pruned, ratios)
    }


def check_reachable(plan: PrunePlan, ratio: float, scope: str, block: tuple[int, int]) -> None:
    """Checks that every layer, or with scope `global` all of them together, reaches its ratio whatever its weights are.

    Args:
        plan: the layers to prune.
        ratio: the target ratio.
        scope: one of `distribution.SCOPES`.
        block: rows and columns of the blocks that are pruned as one.

    Raises:
        InputError: a layer would end below its ratio, or would have to lose all of its weights, which Paddle-Lite
            cannot load; the message names the first one.
    """
    layers = [layer.shape for layer in plan.pruned]
    if scope == "global":
        units = sum(count_units(shape, block) for shape in layers)
        if prune_count(ratio, units) > units - len(layers):
            raise InputError(
                f"ratio {ratio} cannot be reached: {units - len(layers)} of the {units} weights or blocks can be zero, "
                "because each layer keeps one; lower the ratio"
            )
        _check_zeros(f"all of the {len(layers)} layers", layers, ratio, block)
        return
    for layer, layer_ratio in zip(plan.pruned, layer_ratios(layers, ratio, scope)):
        units = count_units(layer.shape, block)
        if prune_count(layer_ratio, units) >= units:
            raise InputError(
                f"ratio {layer_ratio:g} would zero all {units} weights or blocks of {layer.name}; skip it "
                f"(skip=[{layer.name!r}])"
            )
        _check_zeros(f"{layer.name} {list(layer.shape)}", [layer.shape], layer_ratio, block)


def _check_zeros(name: str, shapes: Sequence[Sequence[int]], ratio: float, block: tuple[int, int]) -> None:
    size, zeros = sum(map(math.prod, shapes)), _count_min_zeros(shapes, ratio, block)
    if zeros < prune_count(ratio, size):
        raise InputError(
            f"sparse_block {list(block)} does not divide {name}, which may end with as few as {zeros / size:.2%} "
            f"zeros instead of {ratio:.2%}; skip such layers or choose another block"
        )


def _count_min_zeros(shapes: Sequence[Sequence[int]], ratio: float, block: tuple[int, int]) -> int:
    """The least zeros of weights that are ranked together, each of which keeps a unit."""
    units = sum(count_units(shape, block) for shape in shapes)
    remaining = min(prune_count(ratio, units), units - len(shapes))
    zeros = 0
    sizes = sorted(
        (height * width, rows * columns)
        for shape in shapes
        for height, rows in _block_lengths(shape[0], block[0])
        for width, columns in _block_lengths(math.prod(shape[1:]), block[1])
    )
    for size, count in sizes:  # the smallest blocks first
        pruned = min(remaining, count)
        zeros += pruned * size
        remaining -= pruned
    return zeros


def _block_lengths(length: int, step: int) -> list[tuple[int, int]]:
    """The lengths of the blocks along one dimension and how many there are of each, the shorter one at the edge too."""
    return [(size, count) for size, count in ((step, length // step), (length % step, 1)) if size and count]
