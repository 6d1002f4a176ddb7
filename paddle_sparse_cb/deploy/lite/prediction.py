"""Which planned layers Paddle-Lite would keep dense, before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping

from ...errors import InputError
from ...pruning.plan import PrunePlan
from .constraints import THRESHOLD


def find_dense_layers(plan: PrunePlan, least: Mapping[str, float]) -> dict[str, str]:
    """The planned layers that Paddle-Lite would keep dense.

    Args:
        plan: what is pruned.
        least: structured name to the share of zeros that each will have at least (`forecast.min_sparsity`).

    Returns:
        Structured name to the reason.
    """
    few = {name: f"it may end with as few as {share:.2%} zeros, and runs sparse from {THRESHOLD:.0%}"
           for name, share in least.items() if share < THRESHOLD}
    return {layer.name: layer.lite_dense_reason or few[layer.name] for layer in plan.pruned
            if layer.lite_dense_reason or layer.name in few}


def check_runs_sparse(plan: PrunePlan, least: Mapping[str, float]) -> None:
    """Raises InputError, naming layer and reason, if Paddle-Lite would keep a planned layer dense."""
    dense = find_dense_layers(plan, least)
    if dense:
        name, reason = next(iter(dense.items()))
        more = f" (and {len(dense) - 1} more of {len(plan.pruned)} planned layers)" if len(dense) > 1 else ""
        raise InputError(f"Paddle-Lite would keep {name} dense: {reason}{more}; skip it, or change ratio, scope or "
                         "sparse_block")
