"""How sparse each layer will be at the target, before anything is trained."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .distribution import layer_ratios
from .masks import count_units, prune_count
from .plan import PrunePlan


def min_sparsity(plan: PrunePlan, ratio: float, scope: str = "uniform",
                   block: tuple[int, int] = (1, 1)) -> dict[str, float]:
    """The share of each planned weight that is zero at the target, whatever the weights.

    Args:
        plan: what is pruned.
        ratio: the target ratio.
        scope: see `distribution.SCOPES`; one ranking over all layers promises nothing for any of them.
        block: rows and columns of the blocks pruned as one. Where it does not divide a layer, the blocks at the edge
            are smaller, and may be the ones that go.

    Returns:
        Structured name to the least share of zeros.

    Example:
        >>> from paddle import nn
        >>> from paddle_sparse_cb import make_plan
        >>> min_sparsity(make_plan(nn.Conv2D(8, 12, 1)), 0.75, block=(8, 1))
        {'weight': 0.6666666666666666}
    """
    ratios = layer_ratios([layer.shape for layer in plan.pruned], ratio, scope)
    return {layer.name: _least_zeros(layer.shape, own, block) / math.prod(layer.shape)
            for layer, own in zip(plan.pruned, ratios)}


def _least_zeros(shape: Sequence[int], ratio: float, block: tuple[int, int]) -> int:
    units = count_units(shape, block)
    left = min(prune_count(ratio, units), units - 1)
    zeros = 0
    heights, widths = _cuts(shape[0], block[0]), _cuts(math.prod(shape[1:]), block[1])
    sizes = sorted((height * width, rows * columns) for height, rows in heights for width, columns in widths)
    for size, number in sizes:
        taken = min(left, number)
        zeros += taken * size
        left -= taken
    return zeros


def _cuts(length: int, step: int) -> list[tuple[int, int]]:
    """How a length is cut into steps: (how long, how many), the rest at the edge as well."""
    return [(size, number) for size, number in ((step, length // step), (length % step, 1)) if size and number]
