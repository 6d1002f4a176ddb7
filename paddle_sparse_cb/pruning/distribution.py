"""Distributes a ratio for the whole network over its layers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..errors import InputError, did_you_mean

# Every layer is pruned to the ratio; one ranking over all layers decides; the ratio of a layer follows from its shape.
SCOPES = ("uniform", "global", "erk")


def erk_ratios(shapes: Sequence[Sequence[int]], ratio: float) -> list[float]:
    """Computes Erdős–Rényi-kernel ratios: layers with few weights per channel stay denser.

    The density of a layer is proportional to the sum of its dimensions divided by their product. A layer whose density
    would exceed 1 stays dense, and the others make up for it, so that all layers together reach the ratio.

    Source: U. Evci et al., "Rigging the Lottery: Making All Tickets Winners" (2020), section 3.

    Args:
        shapes: the shapes of the weights, with two or more dimensions each.
        ratio: the share of all weights to prune, below 1.

    Returns:
        A ratio for each weight, from 0 to below 1.

    Example:
        >>> [round(r, 3) for r in erk_ratios([[8, 8, 1, 1], [64, 64, 1, 1]], 0.75)]
        [0.0, 0.762]
    """
    sizes = [math.prod(shape) for shape in shapes]
    dimension_sums = [sum(shape) for shape in shapes]  # density times size, up to a common factor
    dense: set[int] = set()
    while len(dense) < len(shapes):
        sparse = [i for i in range(len(shapes)) if i not in dense]
        kept = (1 - ratio) * sum(sizes) - sum(sizes[i] for i in dense)
        factor = kept / sum(dimension_sums[i] for i in sparse)
        too_dense = {i for i in sparse if factor * dimension_sums[i] >= sizes[i]}
        if not too_dense:
            return [0.0 if i in dense else 1 - factor * dimension_sums[i] / sizes[i] for i in range(len(shapes))]
        dense |= too_dense
    return [0.0] * len(shapes)


def layer_ratios(shapes: Sequence[Sequence[int]], ratio: float, scope: str) -> list[float]:
    """Returns the ratio that each weight is guaranteed; 0 for `global`, where the weights decide.

    Args:
        shapes: the shapes of the weights.
        ratio: the share of all weights to prune, below 1.
        scope: one of `SCOPES`.
    """
    if scope == "erk":
        return erk_ratios(shapes, ratio)
    return [ratio if scope == "uniform" else 0.0] * len(shapes)


def check_scope(scope: str | None) -> str | None:
    """Returns a scope or None, or raises InputError if it is not one of `SCOPES`."""
    if scope is None or scope in SCOPES:
        return scope
    # `local` is nearer to `global` by its letters, but means `uniform`: PaddleSlim's argument is `local_sparsity`.
    hint = "did you mean 'uniform'?" if scope == "local" else did_you_mean(str(scope), SCOPES)
    raise InputError(f"scope must be one of {', '.join(SCOPES)}, got {scope!r}; {hint}")
