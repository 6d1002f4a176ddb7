"""The sparsity that layers are certain to reach at the target ratio, known before training."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..errors import InputError
from .distribution import check_scope, layer_ratios, rankings
from .layer_settings import set_default_block
from .masks import count_units, prune_count
from .plan import PlannedLayer, PrunePlan


def min_sparsity(
    plan: PrunePlan, ratio: float, scope: str = "uniform", block: tuple[int, int] = (1, 1)
) -> dict[str, float]:
    """Returns the least share of zeros of each planned weight at the target ratio, whatever the weights' values are.

    Args:
        plan: the layers to prune.
        ratio: the target ratio of the layers without a ratio of their own.
        scope: one of `distribution.SCOPES`. With `global`, one ranking over all layers decides, and only the layers
            with a ratio of their own are certain of any zeros.
        block: rows and columns that are pruned as one in the layers without a block of their own (see
            `set_default_block`).

    Returns:
        Structured name to the least share of zeros.

    Raises:
        InputError: an unknown scope, or the block divides none of the layers.

    Examples:
        >>> from paddle import nn
        >>> from paddle_sparse_cb import make_plan
        >>> min_sparsity(make_plan(nn.Conv2D(8, 12, 1)), 0.7, block=(4, 1))
        {'weight': 0.7083333333333334}
    """
    scope = check_scope(scope) or "uniform"
    layers = set_default_block(plan, block).pruned
    return {
        layer.name: 0.0 if scope == "global" and layer.ratio is None else _min_sparsity(layer, layer_ratio)
        for layer, layer_ratio in zip(layers, layer_ratios(layers, ratio, scope))
    }


def _min_sparsity(layer: PlannedLayer, ratio: float) -> float:
    units = _count_units([layer])
    zeros = min(prune_count(ratio, units), units - 1) * math.prod(layer.block or ())
    return zeros / math.prod(layer.shape)


def check_reachable(plan: PrunePlan, ratio: float, scope: str, block: tuple[int, int]) -> None:
    """Checks that every layer, or with scope `global` all of them together, can reach its ratio.

    Args:
        plan: the layers to prune.
        ratio: the target ratio of the layers without a ratio of their own.
        scope: one of `distribution.SCOPES`.
        block: see `min_sparsity`.

    Raises:
        InputError: a layer would have to lose all of its weights, which Paddle-Lite cannot load; the message names the
            first one. Or the block divides none of the layers.
    """
    layers = set_default_block(plan, block).pruned
    ratios = layer_ratios(layers, ratio, scope)
    for ranking in rankings(layers, scope):
        ranked, layer_ratio = [layers[index] for index in ranking], ratios[ranking[0]]
        units = _count_units(ranked)
        if prune_count(layer_ratio, units) <= units - len(ranked):
            continue
        if len(ranked) > 1:
            raise InputError(
                f"ratio {layer_ratio} cannot be reached: {units - len(ranked)} of the {units} weights or blocks can be "
                "zero, because each layer keeps one; lower the ratio"
            )
        raise InputError(
            f"ratio {layer_ratio:g} would zero all {units} weights or blocks of {ranked[0].name}; skip it "
            f"(skip=[{ranked[0].name!r}])"
        )


def _count_units(layers: Sequence[PlannedLayer]) -> int:
    return sum(count_units(layer.shape, layer.block or (1, 1)) for layer in layers)
