"""Which weights are pruned, and why the others are not.

The rules of `conv1x1_only` are what Paddle-Lite runs sparse (`geometry.py`). A layer is judged by what it is and does
(`trace.py`); names count only where the user gives patterns.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any, Callable

import paddle
from paddle import nn

from ..errors import InputError
from ..utils.layers import named_weights
from .forward_profile import ForwardProfile, Use
from .layer_rules import pair, why_not_conv1x1, why_not_prunable
from .plan import PlannedLayer, PrunePlan

PRUNE_PARAMS_TYPES = ("conv1x1_only", None)


def make_plan(network: nn.Layer, input_spec: Sequence[Any] | None = None, *,
              prune_params_type: str | None = "conv1x1_only", skip: Sequence[str] = (),
              skip_params_func: Callable[[nn.Layer], set[str]] | None = None,
              prune_squeeze_excite: bool = False) -> PrunePlan:
    """Decides for every weight of a network whether it is pruned.

    Args:
        network: any layer.
        input_spec: `paddle.static.InputSpec`s (or what has `shape` and `dtype`) of its inputs. With them one forward
            shows the size of the maps, the multiply-accumulates and the layers that are called twice; without them a
            squeeze-and-excitation block is told by the pooling layer beside its convolutions, and the rest is not
            known.
        prune_params_type: `conv1x1_only`, or None for all convolutions and linear layers but depthwise ones.
        skip: shell patterns over structured names, such as `head.*`; each must match a weight.
        skip_params_func: PaddleSlim's own: takes the network, returns the parameter names (`parameter.name`) to
            skip; as there, it replaces the rule of `prune_params_type`.
        prune_squeeze_excite: prune the convolutions on a 1x1 map too, as in squeeze-and-excitation: nothing gets faster,
            but the file smaller.

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
    trace = ForwardProfile(network, input_spec) if input_spec is not None else None
    pooled = set() if trace else _beside_pooling(network)
    by_function = set(skip_params_func(network)) if skip_params_func else set()

    def reason(name: str, layer: nn.Layer, weight: paddle.Tensor, use: Use | None, lite_dense_reason: str) -> str:
        if weight.stop_gradient:
            why = "frozen"
        elif skip_params_func:
            why = "skipped by skip_params_func" if by_function & {weight.name, layer.full_name()} else ""
        elif prune_params_type is None:
            why = why_not_prunable(layer, weight)
        else:
            squeeze = id(layer) in pooled if use is None else use.maps == [(1, 1)]
            why = lite_dense_reason or ("on a 1x1 map" if squeeze and not prune_squeeze_excite else "")
        if why:
            return why
        pattern = next((pattern for pattern in skip if fnmatchcase(name, pattern)), None)
        return "" if pattern is None else "on the skip list" if pattern == name else f"skipped by {pattern!r}"

    def planned(name: str, layer: nn.Layer, weight: paddle.Tensor) -> PlannedLayer:
        use = trace.use(weight) if trace else None
        lite_dense_reason = why_not_conv1x1(layer, weight) or _why_not_used_so(use)
        why = reason(name, layer, weight, use, lite_dense_reason)
        maps, macs = (tuple(use.maps), use.macs) if use else ((), None)
        return PlannedLayer(name, tuple(weight.shape), not why, why, lite_dense_reason, maps, macs)

    return PrunePlan(tuple(planned(name, layer, weight) for name, layer, weight in weights))


def _why_not_used_so(use: Use | None) -> str:
    """What a layer does has Paddle-Lite keep it dense although its shape would not."""
    if use is not None and use.calls != 1:  # Paddle-Lite's optimizer crashes on a shared sparse convolution
        return "never called" if use.calls == 0 else f"called {use.calls} times"
    return ""


def _beside_pooling(network: nn.Layer) -> set[int]:
    """Convolutions whose parent also pools to 1x1: squeeze-and-excitation blocks."""
    found = set()
    for layer in network.sublayers(include_self=True):
        children = list(layer.children())
        pools = [isinstance(child, nn.AdaptiveAvgPool2D) and pair(child._output_size) == [1, 1] for child in children]
        if any(pools):
            first = pools.index(True) if isinstance(layer, nn.Sequential) else 0  # which calls them in their order
            found |= {id(child) for child in children[first:] if isinstance(child, nn.Conv2D)}
    return found
