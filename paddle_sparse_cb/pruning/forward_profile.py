"""`ForwardProfile`: how often one forward pass calls each layer, with which output sizes and how many MACs."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import paddle
from paddle import nn
from paddle.jit.dy2static.program_translator import ProgramTranslator

from ..utils.layers import eval_mode, named_weights
from .layer_rules import CONVOLUTIONS_AND_LINEAR, as_pair


@dataclass
class LayerUse:
    """How a forward pass used the layer of one weight.

    Attributes:
        calls: number of calls of the layer.
        output_sizes: the distinct spatial sizes of the layer's outputs in pixels, in the order of the calls.
        macs: multiply-accumulates of all calls, for one image.
    """

    calls: int = 0
    output_sizes: list[tuple[int, ...]] = field(default_factory=list)
    macs: int = 0


class ForwardProfile:
    """Runs one forward pass in evaluation mode and records how each weight is used. The network is not changed.

    Args:
        network: any layer.
        input_spec: objects with the `shape` and `dtype` of each input, such as `paddle.static.InputSpec`; a dimension
            that is not fixed becomes 1.
    """

    def __init__(self, network: nn.Layer, input_spec: Sequence[Any]) -> None:
        # Ones for floats, because the network may divide by an input; zeros for integers, which may be indices.
        inputs = [
            paddle.full(
                [size if size and size > 0 else 1 for size in spec.shape], "float" in str(spec.dtype), dtype=spec.dtype
            )
            for spec in input_spec
        ]
        self._uses = {id(weight): LayerUse() for _, _, weight in named_weights(network)}
        hooks = [
            layer.register_forward_post_hook(self._record)
            for layer in network.sublayers(include_self=True)
            if isinstance(layer, CONVOLUTIONS_AND_LINEAR)
        ]
        try:
            with paddle.no_grad(), eval_mode(network), _without_compilation():
                network(*inputs)
        finally:
            for hook in hooks:
                hook.remove()

    def use(self, weight: paddle.Tensor) -> LayerUse:
        """Returns how the forward pass used a weight of the network."""
        return self._uses[id(weight)]

    def _record(self, layer: nn.Layer, inputs: Any, output: paddle.Tensor) -> None:
        use = self._uses.get(id(layer.weight))
        if use is None:  # the weight is computed, as in weight normalization
            return
        size = _output_size(layer, output)
        use.calls += 1
        use.output_sizes += [size] if size not in use.output_sizes else []
        use.macs += _macs(layer, size)


@contextlib.contextmanager
def _without_compilation() -> Iterator[None]:
    """Runs functions wrapped by `paddle.jit.to_static` as plain Python: compiled code does not call the hooks."""
    enabled = ProgramTranslator().enable_to_static
    paddle.jit.enable_to_static(False)
    try:
        yield
    finally:
        paddle.jit.enable_to_static(enabled)


def _output_size(layer: nn.Layer, output: paddle.Tensor) -> tuple[int, ...]:
    """Returns the dimensions of an output without batch and channels."""
    channels_last = isinstance(layer, nn.Linear) or not layer._data_format.startswith("NC")
    return tuple(output.shape[1:-1] if channels_last else output.shape[2:])


def _macs(layer: nn.Layer, output_size: tuple[int, ...]) -> int:
    """Returns the MACs for one image: each weight is used once per output pixel, or input pixel if transposed."""
    pixels = math.prod(output_size)
    if "Transpose" in type(layer).__name__:
        pixels //= math.prod(as_pair(layer._stride)[: len(output_size)])
    return layer.weight.size * pixels
