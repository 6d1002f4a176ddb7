"""`PrunerState`: what a pruner knows beside the weights, and how its masks are restored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import paddle

from ..errors import InputError
from .plan import PrunePlan
from .schedule import GMPSchedule
from .zeroing import count_alive


@dataclass(frozen=True)
class PrunerState:
    """What a pruner knows beside the weights, as plain values and arrays.

    Attributes:
        step: completed optimizer steps.
        settings: what a resumed run must have in common with the run that was saved: schedule, plan, scope, and the
            layers' ratios and blocks.
        masks: structured name to a bool array of the weight's shape, True where a weight is kept. A weight without a
            mask has not been pruned yet.
    """

    step: int
    settings: dict[str, Any]
    masks: Mapping[str, np.ndarray]


def describe_settings(plan: PrunePlan, schedule: GMPSchedule, scope: str, regrow: bool) -> dict[str, Any]:
    """Returns what a resumed run must have in common with the run that was saved; plain values."""
    return {
        "plan": {layer.name: list(layer.shape) for layer in plan.pruned},
        "schedule": asdict(schedule),
        "scope": scope,
        "regrow": regrow,
        "ratios": {layer.name: layer.ratio for layer in plan.pruned if layer.ratio is not None},
        "blocks": {layer.name: list(layer.block or ()) for layer in plan.pruned},
    }


def restore_masks(
    state: PrunerState, plan: PrunePlan, weights: Sequence[paddle.Tensor], where: str
) -> dict[str, paddle.Tensor]:
    """Creates the masks of a saved state for weights that were saved with it.

    Args:
        state: the saved state.
        plan: the layers to prune.
        weights: their weights, in the order of the plan.
        where: the file of the state, for messages.

    Returns:
        `parameter.name` to a bool tensor of the weight's shape, True where a weight is kept.

    Raises:
        InputError: a mask has another shape than its weight, or a weight is not zero where its mask prunes it.
    """
    masks = {}
    for layer, weight in zip(plan.pruned, weights):
        if layer.name not in state.masks:
            continue
        mask = paddle.to_tensor(state.masks[layer.name], place=weight.place)
        if tuple(mask.shape) != layer.shape:
            raise InputError(
                f"{where}: the mask of {layer.name} has shape {mask.shape}, the weight has shape {list(layer.shape)}"
            )
        alive = count_alive(weight, mask)
        if alive:
            raise InputError(
                f"{where}: the weights are not those of this checkpoint: {alive} weights of {layer.name} "
                "are not zero though its mask prunes them; load the .pdparams file beside it"
            )
        masks[weight.name] = mask
    return masks
