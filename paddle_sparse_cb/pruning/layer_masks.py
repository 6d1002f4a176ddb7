"""Masks of all planned layers, each with its own ratio and block."""

from __future__ import annotations

from collections.abc import Sequence

import paddle

from ..utils.float_bits import magnitude_bits
from .distribution import rankings
from .masks import keep_masks
from .plan import PlannedLayer
from .statistics import count_zeros


def keep_layer_masks(
    layers: Sequence[PlannedLayer],
    weights: Sequence[paddle.Tensor],
    ratios: Sequence[float],
    scope: str = "uniform",
    monotone: bool = True,
    out: Sequence[paddle.Tensor | None] | None = None,
) -> list[paddle.Tensor]:
    """Selects the weights to keep in each layer, or with scope `global` in all layers that are ranked together.

    Args:
        layers: the layers to prune.
        weights: their weights.
        ratios: the ratio of each layer, or of the ranking that it takes part in (see `layer_ratios`).
        scope: one of `distribution.SCOPES`.
        monotone: see `keep_masks`.
        out: for each weight an earlier mask or None, see `keep_masks`.

    Returns:
        For each weight a bool tensor of its shape, True where a weight is kept.
    """
    earlier = [None] * len(weights) if out is None else list(out)
    made: dict[int, paddle.Tensor] = {}
    for ranking in rankings(layers, scope):
        first = ranking[0]
        kept = keep_masks(
            [weights[index] for index in ranking],
            ratios[first],
            layers[first].block or (1, 1),
            monotone,
            [earlier[index] for index in ranking],
        )
        made.update(zip(ranking, kept))
    return [made[index] for index in range(len(weights))]


def mask_zeros(weights: Sequence[paddle.Tensor]) -> dict[str, paddle.Tensor]:
    """Returns masks that prune what is zero already, by `parameter.name`.

    A weight without zeros, or with nothing but zeros, gets no mask.
    """
    return {
        weight.name: magnitude_bits(weight) != 0
        for weight, zeros in zip(weights, count_zeros(list(weights)))
        if 0 < zeros < weight.size
    }
