"""`make_plan`: decides which weights are pruned, and records why the others are not.

`conv1x1_only` prunes what Paddle-Lite runs sparse (see `layer_rules.py`). A layer is judged by its type, geometry and
use in a forward pass (see `forward_profile.py`); names matter only for the user's own patterns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Callable

from paddle import nn

from ..errors import InputError
from ..utils.layers import named_weights
from .forward_profile import ForwardProfile, LayerUse
from .layer_rules import PRUNE_SQUEEZE_EXCITE, as_pair, conv1x1_reason, mnn_reason, unprunable_reason
from .layer_settings import set_layer_values
from .plan import PlannedLayer, PrunePlan

PRUNE_PARAMS_TYPES = ("conv1x1_only", None)


def make_plan(
    network: nn.Layer,
    input_spec: Sequence[Any] | None = None,
    *,
    prune_params_type: str | None = "conv1x1_only",
    skip: Sequence[str] = (),
    skip_params_func: Callable[[nn.Layer], set[str]] | None = None,
    prune_squeeze_excite: bool = PRUNE_SQUEEZE_EXCITE,
    ratios: Mapping[str, float] | None = None,
    blocks: Mapping[str, Sequence[int]] | None = None,
) -> PrunePlan:
    """Decides for every weight of a network whether it is pruned.

    Args:
        network: any layer.
        input_spec: objects with the `shape` and `dtype` of each input, such as `paddle.static.InputSpec`. With them,
            one forward pass determines the output sizes, the multiply-accumulates and the layers that are called
            more than once. Without them, these are unknown, and squeeze-and-excitation is recognised by the pooling
            layer beside its convolutions.
        prune_params_type: `conv1x1_only`, or None for all convolutions and linear layers except depthwise ones.
        skip: shell patterns over structured names, such as `head.*`; each must match a weight.
        skip_params_func: PaddleSlim's function: takes the network and returns the names (`parameter.name`) of the
            parameters to skip. As in PaddleSlim, it replaces the rule of `prune_params_type`.
        prune_squeeze_excite: also prune convolutions with an output size of 1x1, as in squeeze-and-excitation. This
            makes the file smaller but nothing faster.
        ratios: target ratios of single layers, by shell pattern over structured names, such as `{"head.*": 0.6}`; the
            other layers have the ratio of the training. The last pattern that matches decides; a ratio of 0 leaves a
            layer dense.
        blocks: rows and columns that are pruned as one, by pattern, such as `{"backbone.*": (4, 1)}`; the other layers
            have the `sparse_block` of the training.

    Returns:
        The plan; it may prune nothing (see `PrunePlan.require_layers`).

    Raises:
        InputError: `prune_params_type` is unknown, a pattern matches no weight, or one of `ratios` or `blocks` none
            that is pruned, or a block does not divide a layer that it is given to.

    Examples:
        >>> from paddle import nn
        >>> network = nn.Sequential(nn.Conv2D(3, 8, 3), nn.Conv2D(8, 8, 1))
        >>> [(layer.name, layer.pruned, layer.reason) for layer in make_plan(network).layers]
        [('0.weight', False, '3x3 kernel'), ('1.weight', True, '')]
    """
    if prune_params_type not in PRUNE_PARAMS_TYPES:
        raise InputError(f"prune_params_type must be 'conv1x1_only' or None, got {prune_params_type!r}")
    weights = list(named_weights(network))
    _check_patterns(skip, [name for name, _, _ in weights])
    profile = ForwardProfile(network, input_spec) if input_spec is not None else None
    squeeze_excite = _squeeze_excite_layers(network) if profile is None else set()
    skipped_names = set(skip_params_func(network)) if skip_params_func else None

    layers = []
    for name, layer, weight in weights:
        use = profile.use(weight) if profile else None
        lite_dense_reason = conv1x1_reason(layer, weight) or _call_count_reason(use)
        mnn_dense_reason = mnn_reason(layer, weight) or ("never called" if use and use.calls == 0 else "")
        if weight.stop_gradient:
            reason = "frozen"
        elif skipped_names is not None:
            reason = "skipped by skip_params_func" if skipped_names & {weight.name, layer.full_name()} else ""
        elif prune_params_type is None:
            reason = unprunable_reason(layer, weight)
        else:
            is_1x1 = use.output_sizes == [(1, 1)] if use else id(layer) in squeeze_excite
            reason = lite_dense_reason or ("1x1 output" if is_1x1 and not prune_squeeze_excite else "")
        reason = reason or _pattern_reason(name, skip)
        layers.append(
            PlannedLayer(
                name,
                tuple(weight.shape),
                not reason,
                reason,
                lite_dense_reason,
                mnn_dense_reason,
                tuple(use.output_sizes) if use else (),
                use.macs if use else None,
            )
        )
    return set_layer_values(PrunePlan(tuple(layers)), ratios or {}, blocks or {})


def _check_patterns(skip: Sequence[str], names: Sequence[str]) -> None:
    if isinstance(skip, str):
        raise InputError(f"skip must be a sequence of patterns such as ('head.*',), got {skip!r}")
    for pattern in skip:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise InputError(f"skip: the pattern {pattern!r} matches no weight of the network")


def _pattern_reason(name: str, skip: Sequence[str]) -> str:
    """Returns which pattern leaves a weight dense; empty if none does."""
    pattern = next((pattern for pattern in skip if fnmatchcase(name, pattern)), None)
    if pattern is None:
        return ""
    return "on the skip list" if pattern == name else f"skipped by {pattern!r}"


def _call_count_reason(use: LayerUse | None) -> str:
    """Returns why Paddle-Lite would run a layer dense that is not called exactly once; empty if it is, or unknown."""
    if use is None or use.calls == 1:
        return ""
    # Paddle-Lite's optimizer crashes on a sparse convolution that is called twice.
    return "never called" if use.calls == 0 else f"called {use.calls} times"


def _squeeze_excite_layers(network: nn.Layer) -> set[int]:
    """Returns the ids of convolutions whose parent also pools to 1x1, as in squeeze-and-excitation."""
    found = set()
    for layer in network.sublayers(include_self=True):
        children = list(layer.children())
        pools = [
            isinstance(child, nn.AdaptiveAvgPool2D) and as_pair(child._output_size) == [1, 1] for child in children
        ]
        if any(pools):
            # A Sequential calls its children in order, so that those before the pooling see the full size.
            first = pools.index(True) if isinstance(layer, nn.Sequential) else 0
            found |= {id(child) for child in children[first:] if isinstance(child, nn.Conv2D)}
    return found
