"""The sparsity that each layer is certain to reach at the target ratio, known before training."""

from __future__ import annotations

import math
from collections.abc import Sequence

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
        layer.name: _count_min_zeros(layer.shape, layer_ratio, block) / math.prod(layer.shape)
        for layer, layer_ratio in zip(plan.pruned, ratios)
    }


def _count_min_zeros(shape: Sequence[int], ratio: float, block: tuple[int, int]) -> int:
    units = count_units(shape, block)
    remaining = min(prune_count(ratio, units), units - 1)
    zeros = 0
    heights, widths = _block_lengths(shape[0], block[0]), _block_lengths(math.prod(shape[1:]), block[1])
    sizes = sorted((height * width, rows * columns) for height, rows in heights for width, columns in widths)
    for size, count in sizes:  # the smallest blocks first
        pruned = min(remaining, count)
        zeros += pruned * size
        remaining -= pruned
    return zeros


def _block_lengths(length: int, step: int) -> list[tuple[int, int]]:
    """The lengths of the blocks along one dimension and how many there are of each, the shorter one at the edge too."""
    return [(size, count) for size, count in ((step, length // step), (length % step, 1)) if size and count]
