"""One forward on real shapes, watched: how often each layer is called, and on which maps."""

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
from .layer_rules import CONVOLUTIONS_AND_LINEAR, pair


@dataclass
class Use:
    """What the forward showed of one weight.

    Attributes:
        calls: how often its layer was called.
        maps: the sizes of the layer's output maps in pixels, each once.
        macs: multiply-accumulates of all calls, for one image.
    """

    calls: int = 0
    maps: list[tuple[int, ...]] = field(default_factory=list)
    macs: int = 0


class ForwardProfile:
    """A network's forward, as it is in evaluation; the network is left as it was.

    Args:
        network: any layer.
        input_spec: what has `shape` and `dtype` of its inputs; a size that is not fixed counts as 1.
    """

    def __init__(self, network: nn.Layer, input_spec: Sequence[Any]) -> None:
        # Ones, because a scale that an input gives may be divided by; zeros for what may be an index.
        inputs = [paddle.full([size if size and size > 0 else 1 for size in spec.shape], "float" in str(spec.dtype),
                              dtype=spec.dtype) for spec in input_spec]
        self._uses = {id(weight): Use() for _, _, weight in named_weights(network)}
        hooks = [layer.register_forward_post_hook(self._watch) for layer in network.sublayers(include_self=True)
                 if isinstance(layer, CONVOLUTIONS_AND_LINEAR)]
        try:
            with paddle.no_grad(), eval_mode(network), _not_compiled():
                network(*inputs)
        finally:
            for hook in hooks:
                hook.remove()

    def use(self, weight: paddle.Tensor) -> Use:
        """What the forward showed of a weight."""
        return self._uses[id(weight)]

    def _watch(self, layer: nn.Layer, inputs: Any, output: paddle.Tensor) -> None:
        use = self._uses.get(id(layer.weight))
        if use is None:  # a weight that is computed, such as a normalized one
            return
        size = _map_size(layer, output)
        use.calls += 1
        use.maps += [size] if size not in use.maps else []
        use.macs += _macs(layer, size)


@contextlib.contextmanager
def _not_compiled() -> Iterator[None]:
    """What `paddle.jit.to_static` has wrapped runs as it was written: its compiler cannot take the hooks."""
    compiled = ProgramTranslator().enable_to_static
    paddle.jit.enable_to_static(False)
    try:
        yield
    finally:
        paddle.jit.enable_to_static(compiled)


def _map_size(layer: nn.Layer, output: paddle.Tensor) -> tuple[int, ...]:
    """The sizes between the images and the channels."""
    channels_last = isinstance(layer, nn.Linear) or not layer._data_format.startswith("NC")
    return tuple(output.shape[1:-1] if channels_last else output.shape[2:])


def _macs(layer: nn.Layer, size: tuple[int, ...]) -> int:
    """Of one image: each weight once for each pixel that the layer makes, or, transposed, takes."""
    pixels = math.prod(size)
    if "Transpose" in type(layer).__name__:
        pixels //= math.prod(pair(layer._stride)[:len(size)])
    return layer.weight.size * pixels
