"""Counting zeros in the weights of a network."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import paddle

from ..errors import InputError
from ..utils.float_bits import count_zero_bits, host_bits, is_on_host, magnitude_bits
from ..utils.layers import named_weights
from ..utils.tables import render_table

if TYPE_CHECKING:
    from .planner import PrunePlan


@dataclass(frozen=True)
class LayerSparsity:
    """One weight tensor: how many of its elements are zero, and whether it is to be pruned (if not, why)."""

    name: str
    shape: tuple[int, ...]
    zeros: int
    numel: int
    pruned: bool
    reason: str

    @property
    def ratio(self) -> float:
        """Zeros over elements."""
        return self.zeros / self.numel


@dataclass(frozen=True)
class SparsityReport:
    """The zeros of a network, layer by layer; its `str()` is the table."""

    layers: tuple[LayerSparsity, ...]

    @property
    def ratio(self) -> float:
        """Zeros over elements of the weights that are to be pruned; 0 if none are."""
        return _ratio([layer for layer in self.layers if layer.pruned])

    @property
    def total_ratio(self) -> float:
        """Zeros over elements of all weights, the dense ones included."""
        return _ratio(self.layers)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings, for JSON."""
        layers = [{**asdict(layer), "shape": list(layer.shape)} for layer in self.layers]
        return {"ratio": self.ratio, "total_ratio": self.total_ratio, "layers": layers}

    def __str__(self) -> str:
        rows = [(layer.name, "x".join(map(str, layer.shape)), f"{layer.zeros:,}", f"{layer.ratio:.2%}",
                 "pruned" if layer.pruned else layer.reason) for layer in self.layers]
        table = render_table(("weight", "shape", "zeros", "sparsity", ""), rows, "llrrl")
        return f"{table}\npruned weights {self.ratio:.2%} zeros, all weights {self.total_ratio:.2%}"


def _ratio(layers: Any) -> float:
    numel = sum(layer.numel for layer in layers)
    return sum(layer.zeros for layer in layers) / numel if numel else 0.0


def count_zeros(weights: list[paddle.Tensor]) -> list[int]:
    """Exact zeros of each tensor; from a device they are fetched in one transfer."""
    if all(is_on_host(weight) for weight in weights):
        return [count_zero_bits(host_bits(weight)) for weight in weights]
    return paddle.stack([(magnitude_bits(weight) == 0).astype("int64").sum() for weight in weights]).numpy().tolist()


def measure_sparsity(network: paddle.nn.Layer, plan: PrunePlan | None = None) -> SparsityReport:
    """Counts the zeros in a network as it is now.

    Args:
        network: any layer.
        plan: what is to be pruned (`make_plan`); without one every weight counts as pruned.

    Raises:
        InputError: the plan is one of another network.

    Example:
        >>> import paddle
        >>> linear = paddle.nn.Linear(4, 4)
        >>> linear.weight.set_value(paddle.eye(4))
        >>> measure_sparsity(linear).ratio
        0.75
    """
    planned = {layer.name: layer for layer in plan.layers} if plan is not None else {}
    named = [(name, weight) for name, _, weight in named_weights(network)]
    shapes = {name: tuple(weight.shape) for name, weight in named}
    for name, of_plan in planned.items():
        if shapes.get(name) != of_plan.shape:
            raise InputError(f"plan: the network has no weight {name!r} of shape {list(of_plan.shape)}")
    layers = []
    for (name, weight), zeros in zip(named, count_zeros([weight for _, weight in named])):
        layer = planned.get(name)
        pruned, reason = (layer.pruned, layer.reason) if layer else (plan is None, "" if plan is None else "no plan")
        shape = tuple(weight.shape)
        layers.append(LayerSparsity(name, shape, zeros, weight.size, pruned, reason))
    return SparsityReport(tuple(layers))
