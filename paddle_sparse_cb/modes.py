"""Evaluation mode for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from paddle import nn


@contextlib.contextmanager
def evaluating(network: nn.Layer) -> Iterator[None]:
    """Evaluation mode, and afterwards each layer's own mode again (a frozen batch norm stays frozen)."""
    modes = [(layer, layer.training) for layer in network.sublayers(include_self=True)]
    network.eval()
    try:
        yield
    finally:
        for layer, training in modes:
            layer.training = training
