"""What an allocation of ratios may cost: weights that are kept, multiply-accumulates, or measured time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

from ..errors import InputError
from .layer_times import LayerTimes
from .masks import count_units, prune_count
from .sensitivity import LayerSensitivity

_NANOSECONDS = 1e6  # of a millisecond; the costs are whole numbers


class Budget(Protocol):
    """A limit, and what each layer takes of it.

    Attributes:
        limit: the most that all layers may cost together, a whole number.
    """

    limit: int

    def cost(self, layer: LayerSensitivity, ratio: float) -> int | None:
        """Returns what a layer costs at a ratio; None if it cannot have it."""

    def describe(self, cost: int) -> str:
        """Describes what is reached, and the target."""

    def unreachable(self, least: int) -> str:
        """Describes why the target cannot be reached, given the least cost of all layers together."""


def zeros_at(layer: LayerSensitivity, ratio: float) -> int | None:
    """Returns how many weights of a layer a ratio prunes, in whole blocks; None if no block would be left."""
    units = count_units(layer.shape, layer.block)
    pruned = prune_count(ratio, units)
    return pruned * math.prod(layer.block) if pruned < units else None


class SparsityBudget:
    """Weights that are kept.

    Args:
        layers: all layers.
        target: the least share of zeros.
    """

    def __init__(self, layers: Sequence[LayerSensitivity], target: float) -> None:
        self._total, self._target = sum(layer.numel for layer in layers), target
        self.limit = self._total - prune_count(target, self._total)

    def cost(self, layer: LayerSensitivity, ratio: float) -> int | None:
        """Returns the weights that are kept."""
        zeros = zeros_at(layer, ratio)
        return None if zeros is None else layer.numel - zeros

    def describe(self, cost: int) -> str:
        """Describes the sparsity."""
        return f"target sparsity at least {self._target:.4g}, reached {1 - cost / self._total:.4f}"

    def unreachable(self, least: int) -> str:
        """Names the highest sparsity."""
        return (
            f"the target sparsity {self._target:.4g} cannot be reached: with all layers at their highest measured "
            f"ratio it is {1 - least / self._total:.4f}; lower the target, or measure higher ratios"
        )


class MacsBudget:
    """Multiply-accumulates of the layers.

    Args:
        layers: all layers that may be pruned.
        total: multiply-accumulates of the whole dense network.
        target: the most that remains, as a fraction of the whole dense network's.
        ratio: in place of a target: what remains with this ratio in all layers is the most.

    Raises:
        InputError: the multiply-accumulates are not known, or a layer cannot have this ratio.
    """

    def __init__(
        self,
        layers: Sequence[LayerSensitivity],
        total: int | None,
        target: float | None = None,
        ratio: float | None = None,
    ) -> None:
        unknown = [layer.name for layer in layers if layer.macs is None]
        if unknown or not total:
            raise InputError(
                f"{'target_macs' if ratio is None else 'macs_of_ratio'}: the multiply-accumulates of "
                f"{unknown[0] if unknown else 'the network'} are unknown; measure the sensitivity with a plan that was "
                "made with an input_spec"
            )
        self._total = total
        self._others = total - sum(layer.macs or 0 for layer in layers)
        if ratio is None:
            assert target is not None
            self.limit = math.floor(target * total) - self._others
            self._target = f"{target:.4g} of the dense network's"
        else:
            self.limit = sum(self._cost_of_ratio(layer, ratio) for layer in layers)
            share = self._share(self.limit)
            self._target = f"those of ratio {ratio:g} in all layers ({share:.4f} of the dense network's)"

    def _cost_of_ratio(self, layer: LayerSensitivity, ratio: float) -> int:
        cost = self.cost(layer, ratio)
        if cost is None:
            raise InputError(f"macs_of_ratio: the ratio {ratio:g} leaves no weights of {layer.name}; lower it")
        return cost

    def cost(self, layer: LayerSensitivity, ratio: float) -> int | None:
        """Returns the multiply-accumulates with weights that are kept."""
        zeros = zeros_at(layer, ratio)
        return None if zeros is None else -(-(layer.macs or 0) * (layer.numel - zeros) // layer.numel)

    def describe(self, cost: int) -> str:
        """Describes the share that remains."""
        return f"target MACs at most {self._target}, reached {self._share(cost):.4f}"

    def unreachable(self, least: int) -> str:
        """Names the least share."""
        return (
            f"the target MACs, at most {self._target}, cannot be reached: with all layers at their highest "
            f"measured ratio {self._share(least):.4f} remain, {self._share(0):.4f} in layers that are not pruned"
        )

    def _share(self, cost: int) -> float:
        return (self._others + cost) / self._total


class LatencyBudget:
    """Time of the layers, in whole nanoseconds.

    Args:
        layers: all layers that may be pruned.
        target: milliseconds of the whole network.
        times: the times of its layers.

    Raises:
        InputError: a layer was not measured.
    """

    def __init__(self, layers: Sequence[LayerSensitivity], target: float, times: LayerTimes) -> None:
        for layer in layers:
            times.require(layer.name, layer.block, layer.macs)
        self._target, self._times = target, times
        self._others = times.total - sum(times.dense[layer.name] for layer in layers)
        self.limit = round(target * _NANOSECONDS) - round(self._others * _NANOSECONDS)

    def cost(self, layer: LayerSensitivity, ratio: float) -> int | None:
        """Returns the time of a layer."""
        if zeros_at(layer, ratio) is None:
            return None
        milliseconds = self._times.milliseconds(layer.name, layer.block, ratio)
        return None if milliseconds is None else round(milliseconds * _NANOSECONDS)

    def describe(self, cost: int) -> str:
        """Describes the time of the network, and that of the dense one."""
        return (
            f"target at most {self._target:.4g} ms, reached {self._milliseconds(cost):.3f} ms (dense "
            f"{self._times.total:.3f} ms)"
        )

    def unreachable(self, least: int) -> str:
        """Names the shortest time."""
        return (
            f"the target of {self._target:.4g} ms cannot be reached: the least is {self._milliseconds(least):.3f} ms, "
            f"{self._others:.3f} ms of it in layers that are not pruned"
        )

    def _milliseconds(self, cost: int) -> float:
        return self._others + cost / _NANOSECONDS
