"""One forward on real shapes, watched: how often each layer is called, on which maps, and who reads it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import paddle
from paddle import nn
from paddle.jit.dy2static.program_translator import ProgramTranslator

from .geometry import CONVOLUTIONS_AND_LINEAR, pair
from .layers import evaluating, named_weights


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


class Trace:
    """A network's forward, as it is in evaluation; the network is left as it was.

    Args:
        network: any layer.
        input_spec: what has `shape` and `dtype` of its inputs; a size that is not fixed counts as 1.

    Attributes:
        chains: layers that give their output to one another as it is: a convolution, a batch norm or none, a
            convolution.
    """

    def __init__(self, network: nn.Layer, input_spec: Sequence[Any]) -> None:
        self._network = network
        # Ones, because a scale that an input gives may be divided by; zeros for what may be an index.
        self._inputs = [paddle.full([size if size and size > 0 else 1 for size in spec.shape],
                                    "float" in str(spec.dtype), dtype=spec.dtype) for spec in input_spec]
        self._uses = {id(weight): Use() for _, _, weight in named_weights(network)}
        self.chains: list[list[nn.Layer]] = []
        # Tensor id -> the chain that ends in it, and how often the tensor was changed in place; holds the tensor, so
        # that its id is not given out again.
        self._made: dict[int, tuple[list[nn.Layer], paddle.Tensor, int]] = {}
        watched = [layer for layer in network.sublayers(include_self=True)
                   if isinstance(layer, CONVOLUTIONS_AND_LINEAR) or _is_norm(layer)]
        with paddle.no_grad():
            self._run([layer.register_forward_post_hook(self._watch) for layer in watched])
        self._made.clear()

    def use(self, weight: paddle.Tensor) -> Use:
        """What the forward showed of a weight."""
        return self._uses[id(weight)]

    def _watch(self, layer: nn.Layer, inputs: Any, output: paddle.Tensor) -> None:
        before = self._before(inputs)
        if _is_norm(layer):
            if len(before) == 1:
                self._made[id(output)] = [*before, layer], output, output.inplace_version
            return
        use = self._uses.get(id(layer.weight))
        if use is None:  # a weight that is computed, such as a normalized one
            return
        size = _map_size(layer, output)
        use.calls += 1
        use.maps += [size] if size not in use.maps else []
        use.macs += _macs(layer, size)
        if isinstance(layer, nn.Conv2D):
            if before:
                self.chains.append([*before, layer])
            self._made[id(output)] = [layer], output, output.inplace_version

    def _before(self, inputs: Any) -> list[nn.Layer]:
        """The chain that ends in the input of a layer; none where it is called by keyword."""
        chain, tensor, version = self._made.get(id(inputs[0]), ([], None, 0)) if inputs else ([], None, 0)
        return chain if tensor is not None and tensor.inplace_version == version else []

    def read_by_others(self, chain: Sequence[nn.Layer]) -> bool:
        """Whether anything but the next layer of a chain reads what one of its layers gives.

        The forward runs once more with gradients from these layers' outputs alone, which the next layer gets without:
        whatever then has a gradient has read them. What is made of them without a gradient, such as a choice of boxes,
        is not seen.
        """
        marked: dict[int, paddle.Tensor] = {}
        seen: list[nn.Layer] = []

        def mark(layer: nn.Layer, inputs: Any, output: paddle.Tensor) -> paddle.Tensor:
            output.stop_gradient = False
            copy = output.clone()  # no leaf, so that operators may still change it in place
            marked[id(copy)] = copy
            return copy

        def hide(layer: nn.Layer, inputs: Any) -> Any:
            return tuple(value.detach() if id(value) in marked else value for value in inputs)

        def look(layer: nn.Layer, inputs: Any, output: Any) -> None:
            for value in paddle.utils.flatten(output):
                # A layer around the chain gives the same tensor; what the network gives, it gives to others.
                if isinstance(value, paddle.Tensor) and not value.stop_gradient and (
                        layer is self._network or id(value) not in marked):
                    seen.append(layer)

        hooks = [layer.register_forward_post_hook(mark) for layer in chain[:-1]]
        hooks += [layer.register_forward_pre_hook(hide) for layer in chain[1:]]
        hooks += [layer.register_forward_post_hook(look) for layer in self._network.sublayers(include_self=True)]
        with paddle.set_grad_enabled(True), _without_gradients(self._network):
            self._run(hooks)
        return bool(seen)

    def _run(self, hooks: Sequence[Any]) -> None:
        try:
            with evaluating(self._network), _not_compiled():
                self._network(*self._inputs)
        finally:
            for hook in hooks:
                hook.remove()


@contextlib.contextmanager
def _not_compiled() -> Iterator[None]:
    """What `paddle.jit.to_static` has wrapped runs as it was written: its compiler cannot take the hooks."""
    compiled = ProgramTranslator().enable_to_static
    paddle.jit.enable_to_static(False)
    try:
        yield
    finally:
        paddle.jit.enable_to_static(compiled)


@contextlib.contextmanager
def _without_gradients(network: nn.Layer) -> Iterator[None]:
    """No parameter has a gradient for a while."""
    trained = [parameter for parameter in network.parameters() if not parameter.stop_gradient]
    for parameter in trained:
        parameter.stop_gradient = True
    try:
        yield
    finally:
        for parameter in trained:
            parameter.stop_gradient = False


def _is_norm(layer: nn.Layer) -> bool:
    return "BatchNorm" in type(layer).__name__


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
