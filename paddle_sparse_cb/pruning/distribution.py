"""Distributes a ratio for the whole network over its layers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ..errors import InputError, did_you_mean
from .masks import prune_count
from .plan import PlannedLayer

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

    Examples:
        >>> [round(r, 3) for r in erk_ratios([[8, 8, 1, 1], [64, 64, 1, 1]], 0.75)]
        [0.0, 0.762]
    """
    if ratio == 0:  # by rounding, the densities below can miss 1 by 1e-16, which would prune a weight
        return [0.0] * len(shapes)
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


def layer_ratios(
    layers: Sequence[PlannedLayer], ratio: float, scope: str, own: Mapping[float, float] | None = None
) -> list[float]:
    """Returns the ratio that the ranking of each layer is pruned to (see `rankings`).

    A layer with a ratio of its own has this one, and does not take part in the scope: the other layers reach `ratio`
    without it.

    Args:
        layers: the layers to prune.
        ratio: the share of the other layers' weights to prune, below 1.
        scope: one of `SCOPES`.
        own: from the layers' own targets to their ratios at present; by default the targets themselves.
    """
    others = [layer.shape for layer in layers if layer.ratio is None]
    distributed = iter(erk_ratios(others, ratio) if scope == "erk" else [ratio] * len(others))
    return [
        next(distributed) if layer.ratio is None else layer.ratio if own is None else own[layer.ratio]
        for layer in layers
    ]


def rankings(layers: Sequence[PlannedLayer], scope: str) -> list[list[int]]:
    """Returns the layers that are ranked together, by their index.

    Each layer has a ranking of its own, except that scope `global` ranks all layers together that have blocks of one
    size and no ratio of their own. Blocks of different sizes cannot be ranked together: larger ones have larger norms.

    Args:
        layers: the layers to prune, each with a block.
        scope: one of `SCOPES`.
    """
    groups: dict[object, list[int]] = {}
    for index, layer in enumerate(layers):
        together = scope == "global" and layer.ratio is None
        groups.setdefault(layer.block if together else index, []).append(index)
    return list(groups.values())


def overall_ratio(layers: Sequence[PlannedLayer], ratio: float, own: Mapping[float, float] | None = None) -> float:
    """Returns the share of zeros in all layers together that their ratios ask for.

    Args:
        layers: the layers to prune.
        ratio: the ratio of the layers without a ratio of their own.
        own: see `layer_ratios`.

    Examples:
        >>> overall_ratio([PlannedLayer("a", (8, 10), True), PlannedLayer("b", (8, 30), True, ratio=0.9)], 0.5)
        0.8
    """
    if all(layer.ratio is None for layer in layers):
        return ratio
    counts: dict[float, int] = {}
    for layer in layers:
        each = ratio if layer.ratio is None else layer.ratio if own is None else own[layer.ratio]
        counts[each] = counts.get(each, 0) + math.prod(layer.shape)
    # A quotient of whole numbers, so that zeros counted in a file can be compared with it exactly.
    return sum(prune_count(each, size) for each, size in counts.items()) / sum(counts.values())


def check_scope(scope: str | None) -> str | None:
    """Returns a scope or None, or raises InputError if it is not one of `SCOPES`."""
    if scope is None or scope in SCOPES:
        return scope
    # `local` is nearer to `global` by its letters, but means `uniform`: PaddleSlim's argument is `local_sparsity`.
    hint = "did you mean 'uniform'?" if scope == "local" else did_you_mean(str(scope), SCOPES)
    if scope == "sensitivity":
        hint = "recipes have this scope; in Python, allocate_ratios returns ratios"
    raise InputError(f"scope must be one of {', '.join(SCOPES)}, got {scope!r}; {hint}")
