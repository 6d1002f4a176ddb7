"""A network's weights by their names, and its evaluation mode for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import paddle
from paddle import nn


@contextlib.contextmanager
def eval_mode(network: nn.Layer) -> Iterator[None]:
    """Evaluation mode, and afterwards each layer's own mode again (a frozen batch norm stays frozen)."""
    modes = [(layer, layer.training) for layer in network.sublayers(include_self=True)]
    network.eval()
    try:
        yield
    finally:
        for layer, training in modes:
            layer.training = training


def named_weights(network: nn.Layer) -> Iterator[tuple[str, nn.Layer, paddle.Tensor]]:
    """The weights of a network: its parameters of two and more dimensions, each once, however often it is shared.

    Yields:
        The structured name, the layer that owns the parameter, and the parameter.
    """
    seen: set[int] = set()
    for prefix, layer in network.named_sublayers(include_self=True):
        for name, parameter in layer.named_parameters(include_sublayers=False):
            if len(parameter.shape) > 1 and id(parameter) not in seen:
                seen.add(id(parameter))
                yield (f"{prefix}.{name}" if prefix else name), layer, parameter
