"""How a ratio for the whole network is spread over its layers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..errors import InputError

SCOPES = ("uniform", "global", "erk")


def erk_ratios(shapes: Sequence[Sequence[int]], ratio: float) -> list[float]:
    """Erdős–Rényi-kernel ratios: layers with few weights a channel stay denser, and all together have the ratio.

    The density of a layer is proportional to the sum of its dimensions over their product; one that would exceed 1
    is left dense, and the others make up for it.

    Source: U. Evci et al., "Rigging the Lottery: Making All Tickets Winners" (2020), section 3.

    Args:
        shapes: of the weights, with two or more dimensions each.
        ratio: the share of all weights to prune, below 1.

    Returns:
        A ratio for each weight, from 0 to below 1.

    Example:
        >>> [round(r, 3) for r in erk_ratios([[8, 8, 1, 1], [64, 64, 1, 1]], 0.75)]
        [0.0, 0.762]
    """
    sizes = [math.prod(shape) for shape in shapes]
    wanted = [sum(shape) for shape in shapes]  # density times size, up to the common factor
    dense: set[int] = set()
    while len(dense) < len(shapes):
        rest = [i for i in range(len(shapes)) if i not in dense]
        left = (1 - ratio) * sum(sizes) - sum(sizes[i] for i in dense)
        factor = left / sum(wanted[i] for i in rest)
        full = {i for i in rest if factor * wanted[i] >= sizes[i]}
        if not full:
            return [0.0 if i in dense else 1 - factor * wanted[i] / sizes[i] for i in range(len(shapes))]
        dense |= full
    return [0.0] * len(shapes)


def layer_ratios(shapes: Sequence[Sequence[int]], ratio: float, scope: str) -> list[float]:
    """The ratio that each weight is sure of at a ratio for all of them: none in one ranking over all layers.

    Args:
        shapes: of the weights.
        ratio: the share of all weights to prune, below 1.
        scope: one of `SCOPES`.
    """
    if scope == "erk":
        return erk_ratios(shapes, ratio)
    return [ratio if scope == "uniform" else 0.0] * len(shapes)


def check_scope(scope: str | None) -> str | None:
    """Returns a scope, or says what it may be."""
    if scope is not None and scope not in SCOPES:
        raise InputError(f"scope is one of {', '.join(SCOPES)}, got {scope!r}")
    return scope
