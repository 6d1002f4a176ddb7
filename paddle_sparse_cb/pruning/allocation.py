"""`allocate_ratios`: a ratio for each layer, so that the network suffers least for what it saves."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..errors import InputError
from ..utils.tables import render_table
from ..utils.validation import check_fraction, check_number
from .budgets import Budget, LatencyBudget, MacsBudget, SparsityBudget, zeros_at
from .knapsack import budget_loss, choose_options
from .layer_times import LayerTimes, interpolate
from .plan import PrunePlan
from .sensitivity import LayerSensitivity, Sensitivity

MIN_RATIO = 0.6  # from which Paddle-Lite runs a layer sparse
_GRID = tuple(percent / 100 for percent in range(1, 100))


@dataclass(frozen=True)
class AllocatedLayer:
    """One layer of an `Allocation`.

    Attributes:
        layer: what was measured of it.
        ratio: its ratio; 0 leaves it dense.
        loss: how much worse the metric gets with this layer alone pruned to this ratio.
    """

    layer: LayerSensitivity
    ratio: float
    loss: float


@dataclass(frozen=True)
class Allocation:
    """Ratios of single layers; `str(allocation)` is a table.

    Attributes:
        layers: the layers, in the network's order.
        metric: the metric that was measured.
        target: what was asked for, and what is reached.
        uniform_loss: the sum of the losses if all layers had one ratio with as many zeros; None if that ratio was not
            measured.
        total_macs: multiply-accumulates of the whole dense network; None if unknown.
        tolerance: the result is at least as good as any other within a budget that is smaller by this fraction; 0 if it
            is the best within the budget itself.
    """

    layers: tuple[AllocatedLayer, ...]
    metric: str
    target: str
    uniform_loss: float | None
    total_macs: int | None
    tolerance: float

    @property
    def ratios(self) -> dict[str, float]:
        """The ratio of each layer by structured name, such as `make_plan(ratios=...)` takes them."""
        return {one.layer.name: one.ratio for one in self.layers}

    @property
    def loss(self) -> float:
        """The sum of the losses of the layers."""
        return sum(one.loss for one in self.layers)

    @property
    def sparsity(self) -> float:
        """Zeros divided by elements of all layers together."""
        zeros = sum(zeros_at(one.layer, one.ratio) or 0 for one in self.layers)
        return zeros / sum(one.layer.numel for one in self.layers)

    @property
    def macs(self) -> float | None:
        """The share of the network's multiply-accumulates that remains; None if they are unknown."""
        if not self.total_macs or any(one.layer.macs is None for one in self.layers):
            return None
        skipped = sum((one.layer.macs or 0) * one.ratio for one in self.layers)
        return 1 - skipped / self.total_macs

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values that can be saved as JSON."""
        return {
            "target": self.target,
            "metric": self.metric,
            "loss": self.loss,
            "uniform_loss": self.uniform_loss,
            "sparsity": self.sparsity,
            "macs": self.macs,
            "tolerance": self.tolerance,
            "layers": [{"name": one.layer.name, "ratio": one.ratio, "loss": one.loss} for one in self.layers],
        }

    def __str__(self) -> str:
        rows = [
            (
                one.layer.name,
                "x".join(map(str, one.layer.shape)),
                f"{one.layer.numel:,}",
                "" if one.layer.macs is None else f"{one.layer.macs / 1e6:.2f}",
                f"{one.ratio:.4g}" if one.ratio else "dense",
                f"{one.loss:.4f}",
            )
            for one in self.layers
        ]
        table = render_table(("weight", "shape", "elements", "M MACs", "ratio", self.metric), rows, "lrrrrr")
        uniform = "" if self.uniform_loss is None else f", {self.uniform_loss:.4f} with one ratio for all layers"
        macs = "" if self.macs is None else f", {self.macs:.1%} of the network's MACs remain"
        within = f"{1 - self.tolerance:.2%}"
        tolerance = f"; no choice within {within} of the budget has a smaller sum" if self.tolerance else ""
        return (
            f"{table}\n{self.target}; sparsity of these layers {self.sparsity:.2%}{macs}\n"
            f"sum of the changes of {self.metric}: {self.loss:.4f}{uniform}{tolerance}"
        )


def allocate_ratios(
    sensitivity: Sensitivity | str | os.PathLike[str],
    *,
    target_sparsity: float | None = None,
    target_macs: float | None = None,
    macs_of_ratio: float | None = None,
    target_latency: float | None = None,
    costs: str | os.PathLike[str] | None = None,
    plan: PrunePlan | None = None,
    min_ratio: float = MIN_RATIO,
    allows: Callable[[str, float], bool] = lambda name, ratio: True,
) -> Allocation:
    """Chooses a ratio for each layer: the smallest sum of measured losses that reaches a target.

    Dynamic programming over the layers, see `choose_options`. A layer stays dense, or has a ratio from `min_ratio` to
    the highest one that was measured for it, in steps of 0.01; between the measured ratios, losses are interpolated.
    The sum is a prediction: it takes for granted that the losses of layers add up.

    Args:
        sensitivity: what `measure_sensitivity` returned, or its file.
        target_sparsity: the least share of zeros in all of these layers together.
        target_macs: the multiply-accumulates that remain, at most, as a fraction of those of the whole dense network.
        macs_of_ratio: the multiply-accumulates that would remain with this ratio in all layers, at most. The layers
            then have more zeros than that: those that compute little are pruned further.
        target_latency: milliseconds of the whole network, at most, as the sum of the times of its layers in `costs`.
        costs: the `layers.json` of `paddle-sparse bench --layers`, measured at several ratios.
        plan: take the layers that this plan prunes; by default all that were measured.
        min_ratio: the least ratio of a layer that is not dense. Paddle-Lite runs a layer sparse from 0.6.
        allows: further conditions: whether the layer of this name may have this ratio.

    Raises:
        InputError: not one target is given, it cannot be reached, a file cannot be used, or the plan prunes a layer
            that was not measured as it is pruned.

    Examples:
        >>> from paddle_sparse_cb.pruning.sensitivity import LayerSensitivity, Sensitivity
        >>> first = LayerSensitivity("a", (10, 10), (1, 1), None, {0.9: 1.0})
        >>> second = LayerSensitivity("b", (10, 10), (1, 1), None, {0.9: 9.0})
        >>> measured = Sensitivity("loss", False, 0.0, (0.9,), (first, second))
        >>> allocate_ratios(measured, target_sparsity=0.4).ratios
        {'a': 0.8, 'b': 0.0}
    """
    where = "" if isinstance(sensitivity, Sensitivity) else f"{sensitivity}: "
    if not isinstance(sensitivity, Sensitivity):
        sensitivity = Sensitivity.load(sensitivity)
    check_fraction("min_ratio", min_ratio)
    layers = _planned(sensitivity, plan, where) if plan else sensitivity.layers
    _check_complete(sensitivity, layers, where)
    curves = {layer.name: sensitivity.curve(layer) for layer in layers}
    targets = {
        "target_sparsity": target_sparsity,
        "target_macs": target_macs,
        "macs_of_ratio": macs_of_ratio,
        "target_latency": target_latency,
    }
    budget = _budget(sensitivity, layers, targets, costs)
    options = [
        [
            (ratio, interpolate(curves[layer.name], ratio), cost)
            for ratio in _ratios(curves[layer.name], min_ratio)
            if ratio == 0 or allows(layer.name, ratio)
            for cost in [budget.cost(layer, ratio)]
            if cost is not None
        ]
        for layer in layers
    ]
    costs_of = [[cost for _, _, cost in choices] for choices in options]
    picked = choose_options([[loss for _, loss, _ in choices] for choices in options], costs_of, budget.limit)
    if picked is None:
        raise InputError(budget.unreachable(sum(map(min, costs_of))))
    chosen = [choices[index] for choices, index in zip(options, picked)]
    if not any(ratio for ratio, _, _ in chosen):
        raise InputError(f"{where}nothing is to be pruned: {budget.describe(sum(cost for _, _, cost in chosen))}")
    reached = budget.describe(sum(cost for _, _, cost in chosen))
    made = tuple(AllocatedLayer(layer, ratio, loss) for layer, (ratio, loss, _) in zip(layers, chosen))
    tolerance = budget_loss(costs_of, budget.limit) / max(1, budget.limit)
    allocation = Allocation(made, sensitivity.metric, reached, None, sensitivity.macs, tolerance)
    return replace(allocation, uniform_loss=_uniform_loss(curves, allocation.sparsity))


def _planned(sensitivity: Sensitivity, plan: PrunePlan, where: str) -> tuple[LayerSensitivity, ...]:
    measured = {layer.name: layer for layer in sensitivity.layers}
    for layer in plan.require_layers().pruned:
        found = measured.get(layer.name)
        if found is None:
            raise InputError(f"{where}{layer.name} was not measured; measure the sensitivity of this network")
        for name, ours, theirs in (
            ("shape", layer.shape, found.shape),
            ("block", layer.block or (1, 1), found.block),
        ):
            if ours != theirs:
                raise InputError(
                    f"{where}{layer.name} has {name} {list(ours)} in the plan and {list(theirs)} where it was "
                    "measured; measure the sensitivity of this network"
                )
    return tuple(measured[layer.name] for layer in plan.pruned)


def _check_complete(sensitivity: Sensitivity, layers: tuple[LayerSensitivity, ...], where: str) -> None:
    names = {layer.name for layer in layers}
    missing = [one for one in sensitivity.missing() if one[0] in names]
    if missing:
        name, ratio = missing[0]
        raise InputError(
            f"{where}the measurement is not complete: {len(missing)} results are missing, such as {name} at {ratio:g}; "
            "the same command measures the rest"
        )


def _budget(
    sensitivity: Sensitivity,
    layers: tuple[LayerSensitivity, ...],
    targets: Mapping[str, float | None],
    costs: str | os.PathLike[str] | None,
) -> Budget:
    given = [(name, target) for name, target in targets.items() if target is not None]
    if len(given) != 1:
        raise InputError(f"give one of {', '.join(targets)}, got {len(given)}")
    name, target = given[0]
    if (costs is None) != (name != "target_latency"):
        raise InputError("target_latency needs costs, the layers.json of paddle-sparse bench --layers; only it does")
    if costs is not None:
        return LatencyBudget(layers, check_number(name, target), LayerTimes.read(costs))
    check_fraction(name, target)
    if name == "target_sparsity":
        return SparsityBudget(layers, target)
    if name == "target_macs":
        return MacsBudget(layers, sensitivity.macs, target=target)
    return MacsBudget(layers, sensitivity.macs, ratio=target)


def _ratios(curve: list[tuple[float, float]], min_ratio: float) -> list[float]:
    """The ratios that a layer may have: 0, those measured and a grid between them."""
    highest = curve[-1][0]
    between = {ratio for ratio in (*_GRID, *(ratio for ratio, _ in curve)) if min_ratio <= ratio <= highest}
    return sorted({0.0, *between})


def _uniform_loss(curves: Mapping[str, list[tuple[float, float]]], ratio: float) -> float | None:
    """The sum of the losses with one ratio for all layers; None if it is higher than what was measured."""
    if any(curve[-1][0] < round(ratio, 2) for curve in curves.values()):
        return None
    return sum(interpolate(curve, ratio) for curve in curves.values())
