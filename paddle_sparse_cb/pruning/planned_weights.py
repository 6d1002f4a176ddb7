"""Finds the weights of a plan in a network."""

from __future__ import annotations

import paddle

from ..errors import InputError
from ..utils.layers import named_weights
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
