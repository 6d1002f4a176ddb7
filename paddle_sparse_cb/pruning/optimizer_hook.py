"""The pruner of an optimizer and the average of a model, for callbacks that do not make them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..callbacks.ema import EMACallback
    from .pruner import GMPPruner


def get_attached_pruner(optimizer: Any) -> GMPPruner | None:
    """The pruner whose `attach` was called on an optimizer, until its `detach` is."""
    return getattr(vars(optimizer).get("step"), "_gmp", None)


def is_target_reached(optimizer: Any) -> bool:
    """Whether the masks are those of the target ratio; without a pruner there is nothing to wait for."""
    pruner = get_attached_pruner(optimizer)
    return pruner is None or (pruner.ratio >= pruner.target_ratio and bool(pruner.masks))


def get_attached_ema(model: Any) -> EMACallback | None:
    """The callback that averages a model's weights, from train begin to train end."""
    return vars(model).get("_gmp_average")
