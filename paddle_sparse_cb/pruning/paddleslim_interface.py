"""The rest of PaddleSlim's pruner interface, for code that was written against PaddleSlim."""

from __future__ import annotations

import paddle
from paddleslim import GMPUnstructuredPruner

from ..errors import InputError
from ..utils.layers import named_weights
from .plan import PrunePlan
from .schedule import GMPSchedule
from .statistics import count_zeros, measure_sparsity


class PaddleSlimInterface(GMPUnstructuredPruner):
    """Attributes and static methods that PaddleSlim's `GMPUnstructuredPruner` has and `GMPPruner` does not need.

    PaddleSlim's constructors are not called: they add buffers to the layers and forward hooks, and cut the phases of
    the schedule.
    """

    mode = "ratio"
    threshold = 0.0  # no threshold decides here, but a count
    model: paddle.nn.Layer
    plan: PrunePlan
    schedule: GMPSchedule
    weights: list[paddle.Tensor]
    cur_iteration: int

    @property
    def skip_params(self) -> set[str]:
        """Names of the parameters that are not pruned, and of the normalization layers."""
        pruned = {weight.name for weight in self.weights}
        norms = {layer.full_name() for layer in self.model.sublayers() if "Norm" in type(layer).__name__}
        return norms | {parameter.name for parameter in self.model.parameters() if parameter.name not in pruned}

    @property
    def ratios_stack(self) -> list[float]:
        """The ratios still to come, one for each pruning step, the next one last."""
        schedule = self.schedule
        period = max(1, schedule.pruning_iterations // schedule.pruning_steps)
        end = schedule.target_step + schedule.tunning_iterations
        first = -(-self.cur_iteration // period) * period
        return [schedule.at(step) for step in range(first, end, period)][::-1]

    @staticmethod
    def total_sparse(model: paddle.nn.Layer) -> float:
        """Returns zeros over elements of all weights of a network."""
        return measure_sparsity(model).total_ratio

    @staticmethod
    def total_sparse_conv1x1(model: paddle.nn.Layer) -> float:
        """Returns zeros over elements of the 1x1 convolutions of a network."""
        weights = [weight for _, _, weight in named_weights(model) if list(weight.shape[2:]) == [1, 1]]
        return sum(count_zeros(weights)) / max(1, sum(weight.size for weight in weights))


def resolve_params_type(prune_params_type: str | None, skip_params_type: str | None) -> str | None:
    """Returns `prune_params_type`, also where it is given under its former name.

    Args:
        prune_params_type: see `make_plan`.
        skip_params_type: None, or `exclude_conv1x1`, which excludes 1x1 convolutions from what is skipped.

    Raises:
        InputError: both are given, or `skip_params_type` is another value.
    """
    if skip_params_type is None:
        return prune_params_type
    if skip_params_type != "exclude_conv1x1":
        raise InputError(f"skip_params_type must be None or 'exclude_conv1x1', got {skip_params_type!r}")
    if prune_params_type is not None:
        raise InputError("skip_params_type is the former name of prune_params_type; give one of them")
    return "conv1x1_only"
