"""Ratios and blocks of single layers: shell patterns over structured names, and the default block of other layers.

The last pattern that matches a name decides: a general pattern comes first, and its exceptions follow. A recipe that
starts from another one through `_BASE_` has the last word, because its patterns are appended.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

from ..errors import InputError, did_you_mean
from ..utils.validation import check_fraction
from .masks import check_block
from .plan import PlannedLayer, PrunePlan


def check_ratios(ratios: Mapping[str, float]) -> dict[str, float]:
    """Returns target ratios by pattern as Python's own floats.

    Raises:
        InputError: not a mapping of strings to fractions from 0 to below 1.
    """
    _check_patterns("ratios", ratios, "{'head.*': 0.6}")
    return {pattern: check_fraction(f"ratios: {pattern!r}", ratio) for pattern, ratio in ratios.items()}


def check_blocks(blocks: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, int]]:
    """Returns blocks by pattern as rows and columns.

    Raises:
        InputError: not a mapping of strings to two positive whole numbers.
    """
    _check_patterns("blocks", blocks, "{'head.*': [2, 1]}")
    return {pattern: check_block(block, f"blocks: {pattern!r}") for pattern, block in blocks.items()}


def _check_patterns(argument: str, values: Mapping[str, Any], example: str) -> None:
    if not isinstance(values, Mapping) or not all(isinstance(pattern, str) for pattern in values):
        raise InputError(f"{argument} must map patterns to values, such as {example}, got {values!r}")


def set_layer_values(plan: PrunePlan, ratios: Mapping[str, float], blocks: Mapping[str, Sequence[int]]) -> PrunePlan:
    """Returns a plan whose layers have the target ratios and blocks that patterns give them.

    Args:
        plan: the layers to prune.
        ratios: target ratio by pattern; 0 leaves a layer dense, as `skip` does.
        blocks: rows and columns by pattern.

    Raises:
        InputError: a value is out of range, a pattern matches no weight that is pruned, or a block does not divide a
            layer that it is given to.
    """
    layers = _set_values(plan.layers, "ratios", check_ratios(ratios), _with_ratio)
    return PrunePlan(_set_values(layers, "blocks", check_blocks(blocks), _with_block))


def _set_values(
    layers: tuple[PlannedLayer, ...], argument: str, values: Mapping[str, Any], with_value: Any
) -> tuple[PlannedLayer, ...]:
    decisive: dict[str, str] = {}
    for pattern in values:
        matching = [layer for layer in layers if fnmatchcase(layer.name, pattern)]
        if not matching:
            hint = did_you_mean(pattern, [layer.name for layer in layers])
            raise InputError(f"{argument}: the pattern {pattern!r} matches no weight of the network; {hint}")
        if not any(layer.pruned for layer in matching):
            name, reason = matching[0].name, matching[0].reason
            raise InputError(f"{argument}: the pattern {pattern!r} matches no weight that is pruned ({name}: {reason})")
        decisive.update({layer.name: pattern for layer in matching if layer.pruned})
    return tuple(
        with_value(layer, values[decisive[layer.name]], decisive[layer.name]) if layer.name in decisive else layer
        for layer in layers
    )


def _with_ratio(layer: PlannedLayer, ratio: float, pattern: str) -> PlannedLayer:
    if ratio == 0:
        return replace(layer, pruned=False, reason=f"ratio 0 by {pattern!r}")
    return replace(layer, ratio=ratio)


def _with_block(layer: PlannedLayer, block: tuple[int, int], pattern: str) -> PlannedLayer:
    if not divides(block, layer.shape):
        raise InputError(
            f"blocks: {list(block)} of the pattern {pattern!r} does not divide {layer.name} {list(layer.shape)}; give "
            "it another block: the last pattern that matches decides"
        )
    return replace(layer, block=block, block_note="")


def set_default_block(plan: PrunePlan, sparse_block: Sequence[int]) -> PrunePlan:
    """Returns a plan whose layers all have a block.

    A layer that has none yet gets `sparse_block` or, where that does not divide it, single weights and a note.

    Args:
        plan: the layers to prune.
        sparse_block: rows and columns that are pruned as one.

    Raises:
        InputError: not two positive whole numbers, a layer has a block that does not divide it, or `sparse_block`
            divides none of the layers that it is for.
    """
    block = check_block(sparse_block)
    without = [layer for layer in plan.pruned if layer.block is None]
    if without and not any(divides(block, layer.shape) for layer in without):
        raise InputError(
            f"sparse_block {list(block)} divides none of the layers to prune, such as {without[0].name} "
            f"{list(without[0].shape)}; choose another block"
        )
    for layer in plan.pruned:
        if layer.block is not None and not divides(layer.block, layer.shape):
            raise InputError(f"plan: block {list(layer.block)} does not divide {layer.name} {list(layer.shape)}")
    return PrunePlan(
        tuple(layer if layer.block or not layer.pruned else _with_default(layer, block) for layer in plan.layers)
    )


def _with_default(layer: PlannedLayer, block: tuple[int, int]) -> PlannedLayer:
    if divides(block, layer.shape):
        return replace(layer, block=block)
    return replace(layer, block=(1, 1), block_note=f"{block[0]}x{block[1]} does not divide it")


def divides(block: tuple[int, int], shape: Sequence[int]) -> bool:
    """Returns whether a weight consists of whole blocks.

    Args:
        block: rows and columns.
        shape: [rows, ...]; the other dimensions are flattened to columns.

    Examples:
        >>> divides((4, 1), (8, 12, 1, 1)), divides((4, 1), (10, 12, 1, 1))
        (True, False)
    """
    return shape[0] % block[0] == 0 and math.prod(shape[1:]) % block[1] == 0
