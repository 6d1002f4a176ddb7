"""Which weights are pruned, and why the others are not.

Paddle-Lite runs a convolution sparse when it is 1x1, of one group, stride 1 and without padding
(lite/core/optimizer/mir/sparse_conv_detect_pass.cc), so these are the rules of `conv1x1_only`. A layer is judged by
what it is and does; names count only where the user gives patterns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Callable

import paddle
from paddle import nn
from tabulate import tabulate

from .errors import InputError
from .layers import evaluating, named_weights

PRUNE_PARAMS_TYPES = ("conv1x1_only", None)
_CONVOLUTIONS_AND_LINEAR = (nn.Conv1D, nn.Conv2D, nn.Conv3D, nn.Conv1DTranspose, nn.Conv2DTranspose,
                            nn.Conv3DTranspose, nn.Linear)


@dataclass(frozen=True)
class PlannedLayer:
    """One weight: its structured name, its shape, and if it is not pruned, the reason."""

    name: str
    shape: tuple[int, ...]
    pruned: bool
    reason: str = ""


@dataclass(frozen=True)
class PrunePlan:
    """What is pruned and what is not, for every weight of a network; its `str()` is the table."""

    layers: tuple[PlannedLayer, ...]

    @property
    def pruned(self) -> tuple[PlannedLayer, ...]:
        """The layers to prune, in the network's order."""
        return tuple(layer for layer in self.layers if layer.pruned)

    def require_layers(self) -> PrunePlan:
        """Returns itself, or raises InputError with the commonest reasons when nothing is left to prune."""
        if self.pruned:
            return self
        reasons = Counter(layer.reason for layer in self.layers)
        listed = ", ".join(f"{count} x {reason}" for reason, count in reasons.most_common(4)) or "it has no weights"
        raise InputError(f"no layer left to prune: {listed}; prune_params_type=None takes all convolutions and linear "
                         "layers, skip names those to leave out")

    def __str__(self) -> str:
        rows = [(layer.name, "x".join(map(str, layer.shape)), "pruned" if layer.pruned else layer.reason)
                for layer in self.layers]
        table = tabulate(rows, headers=("weight", "shape", ""))
        return f"{table}\n{len(self.pruned)} of {len(self.layers)} weights are pruned"


@dataclass
class _Usage:
    """What one forward showed of the convolutions, by the id of the weight.

    How often each was used, on maps of which size (pixels), and which Paddle-Lite makes one of.
    """

    calls: Counter[int] = field(default_factory=Counter)
    spatial: dict[int, int] = field(default_factory=dict)
    merged: set[int] = field(default_factory=set)


def make_plan(network: nn.Layer, input_spec: Sequence[Any] | None = None, *,
              prune_params_type: str | None = "conv1x1_only", skip: Sequence[str] = (),
              skip_params_func: Callable[[nn.Layer], set[str]] | None = None) -> PrunePlan:
    """Decides for every weight of a network whether it is pruned.

    Args:
        network: any layer.
        input_spec: `paddle.static.InputSpec`s (or what has `shape` and `dtype`) of its inputs. With them one forward
            on zeros shows the size of the maps and the layers that are called twice; without them a squeeze-and-
            excitation block is told by the pooling layer beside its convolutions.
        prune_params_type: `conv1x1_only`, or None for all convolutions and linear layers but depthwise ones.
        skip: shell patterns over structured names, such as `head.*`; each must match a weight.
        skip_params_func: PaddleSlim's own: takes the network, returns the parameter names (`parameter.name`) to
            skip; as there, it replaces the rule of `prune_params_type`.

    Returns:
        The plan, which may have no layer to prune (`PrunePlan.require_layers` raises then).

    Raises:
        InputError: an unknown `prune_params_type`, or a pattern that matches nothing.

    Example:
        >>> from paddle import nn
        >>> network = nn.Sequential(nn.Conv2D(3, 8, 3), nn.Conv2D(8, 8, 1))
        >>> [(layer.name, layer.pruned, layer.reason) for layer in make_plan(network).layers]
        [('0.weight', False, '3x3 kernel'), ('1.weight', True, '')]
    """
    if prune_params_type not in PRUNE_PARAMS_TYPES:
        raise InputError(f"prune_params_type is 'conv1x1_only' or None, got {prune_params_type!r}")
    weights = list(named_weights(network))
    if isinstance(skip, str):
        raise InputError(f"skip is a sequence of patterns such as ('head.*',), got {skip!r}")
    for pattern in skip:
        if not any(fnmatchcase(name, pattern) for name, _, _ in weights):
            raise InputError(f"skip: the pattern {pattern!r} matches no weight of the network")
    usage = _trace(network, input_spec) if input_spec is not None else None
    pooled = set() if usage else _beside_pooling(network)
    by_function = set(skip_params_func(network)) if skip_params_func else set()

    def reason(name: str, layer: nn.Layer, weight: paddle.Tensor) -> str:
        if weight.stop_gradient:
            why = "frozen"
        elif skip_params_func:
            why = "skipped by skip_params_func" if by_function & {weight.name, layer.full_name()} else ""
        elif prune_params_type is None:
            why = _why_not_any(layer, weight)
        else:
            why = _why_not_conv1x1(layer, weight) or _why_not_used_so(weight, usage, id(layer) in pooled)
        if why:
            return why
        pattern = next((pattern for pattern in skip if fnmatchcase(name, pattern)), None)
        return "" if pattern is None else "on the skip list" if pattern == name else f"skipped by {pattern!r}"

    reasons = [(name, tuple(weight.shape), reason(name, layer, weight)) for name, layer, weight in weights]
    return PrunePlan(tuple(PlannedLayer(name, shape, not why, why) for name, shape, why in reasons))


def _why_not_any(layer: nn.Layer, weight: paddle.Tensor) -> str:
    if not isinstance(layer, _CONVOLUTIONS_AND_LINEAR):
        return f"no convolution or linear layer ({type(layer).__name__})"
    if getattr(layer, "_groups", 1) > 1 and weight.shape[1] == 1:
        return "depthwise"
    return "a single weight" if weight.size == 1 else ""


def _why_not_conv1x1(layer: nn.Layer, weight: paddle.Tensor) -> str:
    """Paddle-Lite's conditions on the layer itself."""
    if not isinstance(layer, nn.Conv2D):
        return f"no 2D convolution ({type(layer).__name__})"
    kernel = weight.shape[2:]
    if list(kernel) != [1, 1]:
        return f"{kernel[0]}x{kernel[1]} kernel"
    if layer._groups != 1:
        return f"{layer._groups} groups"
    if any(stride != 1 for stride in _pair(layer._stride)):
        return f"stride {_pair(layer._stride)[0]}"
    padding = layer._updated_padding if hasattr(layer, "_updated_padding") else layer._padding
    if not isinstance(padding, str) and any(_pair(padding)):
        return f"padding {padding}"
    return "a single weight" if weight.size == 1 else ""


def _why_not_used_so(weight: paddle.Tensor, usage: _Usage | None, pooled: bool) -> str:
    """What a layer does rules it out although its shape would not."""
    if pooled:
        return "on a 1x1 map"
    if usage is None:
        return ""
    calls = usage.calls[id(weight)]
    if calls != 1:  # Paddle-Lite's optimizer crashes on a shared sparse convolution
        return "never called" if calls == 0 else f"called {calls} times"
    if id(weight) in usage.merged:
        return "merged with its neighbour by Paddle-Lite"
    return "on a 1x1 map" if usage.spatial[id(weight)] == 1 else ""


def _pair(value: Any) -> list[int]:
    return list(value) if isinstance(value, (list, tuple)) else [value, value]


def _beside_pooling(network: nn.Layer) -> set[int]:
    """Convolutions whose parent also pools to 1x1: squeeze-and-excitation blocks."""
    found = set()
    for layer in network.sublayers(include_self=True):
        children = list(layer.children())
        if any(isinstance(child, nn.AdaptiveAvgPool2D) and _pools_to_one(child) for child in children):
            found |= {id(child) for child in children if isinstance(child, nn.Conv2D)}
    return found


def _pools_to_one(pool: nn.AdaptiveAvgPool2D) -> bool:
    return _pair(pool._output_size) == [1, 1]


def _trace(network: nn.Layer, input_spec: Sequence[Any]) -> _Usage:
    """Runs one forward on zeros and watches the convolutions; the network is left as it was."""
    usage = _Usage()
    made: dict[int, tuple[nn.Conv2D | None, paddle.Tensor]] = {}  # tensor id -> convolution; holds the tensor, so
    # that its id is not given out again

    def watch(layer: nn.Layer, inputs: Any, output: paddle.Tensor) -> None:
        source = made.get(id(inputs[0]), (None,))[0] if inputs else None  # none where it is called by keyword
        if not isinstance(layer, nn.Conv2D):  # a batch norm, which is folded into the convolution before it
            made[id(output)] = source, output
            return
        made[id(output)] = layer, output
        usage.calls[id(layer.weight)] += 1
        usage.spatial[id(layer.weight)] = int(output.shape[-1]) * int(output.shape[-2])
        if source is not None and _merges(source, layer):
            usage.merged |= {id(source.weight), id(layer.weight)}

    inputs = [paddle.zeros([size if size and size > 0 else 1 for size in spec.shape], dtype=spec.dtype)
              for spec in input_spec]
    watched = [layer for layer in network.sublayers(include_self=True)
               if isinstance(layer, nn.Conv2D) or "BatchNorm" in type(layer).__name__]
    hooks = [layer.register_forward_post_hook(watch) for layer in watched]
    try:
        with evaluating(network), paddle.no_grad():
            network(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return usage


def _merges(first: nn.Conv2D, second: nn.Conv2D) -> bool:
    """Whether Paddle-Lite multiplies two convolutions with nothing between them into a dense one.

    The condition is that of lite/core/optimizer/mir/fusion/conv_conv_fuser.cc; a bias of the first is an addition
    between the two. That the first one's output goes elsewhere too, which prevents it, cannot be seen here: such a
    pair is left dense without need.
    """
    if first.bias is not None or list(second.weight.shape[2:]) != [1, 1] or first._groups != 1 or second._groups != 1:
        return False
    middle, before, after = first.weight.shape[0], first.weight.shape[1], second.weight.shape[0]
    return 0 < before * (after - middle) <= middle * after
