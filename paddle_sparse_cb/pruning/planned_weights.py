"""Finds the weights of a plan in a network, and checks that each of them keeps something."""

from __future__ import annotations

from collections.abc import Sequence

import paddle

from ..errors import InputError
from ..utils.layers import named_weights
from .masks import count_units, prune_count
from .plan import PrunePlan


def find_planned_weights(network: paddle.nn.Layer, plan: PrunePlan) -> list[paddle.Tensor]:
    """Returns the parameters that a plan prunes, in the order of the plan.

    Raises:
        InputError: the network has no weight of that name and shape.
    """
    named = {name: weight for name, _, weight in named_weights(network)}
    for layer in plan.pruned:
        if layer.name not in named or tuple(named[layer.name].shape) != layer.shape:
            raise InputError(f"plan: the network has no weight {layer.name!r} of shape {list(layer.shape)}")
    return [named[layer.name] for layer in plan.pruned]


def check_layers_survive(plan: PrunePlan, ratios: Sequence[float], block: tuple[int, int]) -> None:
    """Checks that no layer would lose all of its weights or blocks.

    Args:
        plan: the layers to prune.
        ratios: the target ratio of each of them.
        block: rows and columns of the blocks that are pruned as one.

    Raises:
        InputError: a layer would be all zeros, which Paddle-Lite cannot load.
    """
    for layer, ratio in zip(plan.pruned, ratios):
        units = count_units(layer.shape, block)
        if prune_count(ratio, units) >= units:
            raise InputError(
                f"ratio {ratio:g} would zero all {units} weights or blocks of {layer.name}; skip it "
                f"(skip=[{layer.name!r}])"
            )
