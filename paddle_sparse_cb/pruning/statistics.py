"""`measure_sparsity`: counts the zeros in the weights of a network."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import paddle

from ..errors import InputError
from ..utils.float_bits import count_zero_bits, host_bits, is_on_host, magnitude_bits
from ..utils.layers import named_weights
from ..utils.tables import render_table
from .plan import PrunePlan


@dataclass(frozen=True)
class LayerSparsity:
    """The zeros of one weight.

    Attributes:
        name: structured name of the weight.
        shape: shape of the weight.
        zeros: number of elements that are zero.
        numel: number of elements.
        pruned: whether the plan prunes the weight.
        reason: why the plan does not prune the weight; empty if it does.
    """

    name: str
    shape: tuple[int, ...]
    zeros: int
    numel: int
    pruned: bool
    reason: str

    @property
    def ratio(self) -> float:
        """Zeros divided by elements."""
        return self.zeros / self.numel


@dataclass(frozen=True)
class SparsityReport:
    """The zeros of a network by layer; `str(report)` is a table.

    Attributes:
        layers: every weight of the network, in the network's order.
    """

    layers: tuple[LayerSparsity, ...]

    @property
    def ratio(self) -> float:
        """Zeros divided by elements of the weights that the plan prunes; 0 if it prunes none."""
        return _ratio(layer for layer in self.layers if layer.pruned)

    @property
    def total_ratio(self) -> float:
        """Zeros divided by elements of all weights, dense ones included."""
        return _ratio(self.layers)

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as plain values that can be saved as JSON."""
        layers = [{**asdict(layer), "shape": list(layer.shape)} for layer in self.layers]
        return {"ratio": self.ratio, "total_ratio": self.total_ratio, "layers": layers}

    def __str__(self) -> str:
        rows = [
            (
                layer.name,
                "x".join(map(str, layer.shape)),
                f"{layer.zeros:,}",
                f"{layer.ratio:.2%}",
                "pruned" if layer.pruned else layer.reason,
            )
            for layer in self.layers
        ]
        table = render_table(("weight", "shape", "zeros", "sparsity", "status"), rows, "llrrl")
        return f"{table}\npruned weights {self.ratio:.2%} zeros, all weights {self.total_ratio:.2%}"


def _ratio(layers: Iterable[LayerSparsity]) -> float:
    counts = [(layer.zeros, layer.numel) for layer in layers]
    numel = sum(size for _, size in counts)
    return sum(zeros for zeros, _ in counts) / numel if numel else 0.0


def count_zeros(weights: list[paddle.Tensor]) -> list[int]:
    """Returns the number of exact zeros in each tensor; from a device, all numbers are fetched in one transfer."""
    if all(is_on_host(weight) for weight in weights):
        return [count_zero_bits(host_bits(weight)) for weight in weights]
    return paddle.stack([(magnitude_bits(weight) == 0).astype("int64").sum() for weight in weights]).numpy().tolist()


def measure_sparsity(network: paddle.nn.Layer, plan: PrunePlan | None = None) -> SparsityReport:
    """Counts the zeros in the weights of a network.

    Args:
        network: any layer.
        plan: which weights are pruned (see `make_plan`); without a plan, every weight counts as pruned.

    Raises:
        InputError: the plan belongs to another network.

    Examples:
        >>> import paddle
        >>> linear = paddle.nn.Linear(4, 4)
        >>> linear.weight.set_value(paddle.eye(4))
        >>> measure_sparsity(linear).ratio
        0.75
    """
    planned = {layer.name: layer for layer in plan.layers} if plan is not None else {}
    named = [(name, weight) for name, _, weight in named_weights(network)]
    shapes = {name: tuple(weight.shape) for name, weight in named}
    for name, planned_layer in planned.items():
        if shapes.get(name) != planned_layer.shape:
            raise InputError(f"plan: the network has no weight {name!r} of shape {list(planned_layer.shape)}")
    layers = []
    for (name, weight), zeros in zip(named, count_zeros([weight for _, weight in named])):
        layer = planned.get(name)
        pruned, reason = (layer.pruned, layer.reason) if layer else (plan is None, "" if plan is None else "no plan")
        layers.append(LayerSparsity(name, shapes[name], zeros, weight.size, pruned, reason))
    return SparsityReport(tuple(layers))
