"""`LayerOutputs`: records what layers of a network return in a forward pass."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import paddle
from paddle import nn

from ..errors import InputError, did_you_mean


class LayerOutputs:
    """Records the outputs of layers by forward hooks.

    Args:
        network: any network, also one within `paddle.DataParallel`.
        names: structured names of layers; an empty name is the network itself.
        whose: whose layers these are, for messages, such as `teacher`.

    Raises:
        InputError: the network has no such layer, or one within a program of `paddle.jit.to_static`, where hooks are
            called once at compilation.
    """

    def __init__(self, network: nn.Layer, names: Iterable[str], whose: str) -> None:
        self._whose = whose
        self._outputs: dict[str, list[Any]] = {}
        self._is_recording = False
        layers = {name: find_layer(network, name, whose) for name in names}
        self._handles = [
            layer.register_forward_post_hook(functools.partial(self._record, name)) for name, layer in layers.items()
        ]

    def _record(self, name: str, layer: nn.Layer, inputs: Any, outputs: Any) -> None:
        if self._is_recording:
            self._outputs.setdefault(name, []).append(outputs)

    def start(self) -> None:
        """Begins to record a forward pass, and drops what was recorded before."""
        self._outputs.clear()
        self._is_recording = True

    def stop(self) -> None:
        """Drops what was recorded, and ignores later calls, such as those of recomputed layers in a backward pass."""
        self._outputs.clear()
        self._is_recording = False

    def last(self, name: str) -> Any:
        """Returns what a layer returned when it was last called.

        Raises:
            InputError: it was not called.
        """
        return self._calls(name)[-1]

    def maps(self, name: str) -> list[paddle.Tensor]:
        """Returns the floating-point tensors in all outputs of a layer, in order.

        Raises:
            InputError: it was not called.
        """
        return [
            one
            for one in paddle.utils.flatten(self._calls(name))
            if isinstance(one, paddle.Tensor) and paddle.is_floating_point(one)
        ]

    def _calls(self, name: str) -> list[Any]:
        if name not in self._outputs:
            raise InputError(f"Distillation: the forward pass of the {self._whose} does not call its layer {name!r}")
        return self._outputs[name]

    def remove(self) -> None:
        """Removes the hooks, and what was recorded."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self.stop()


def without_wrapper(network: nn.Layer) -> nn.Layer:
    """Returns the network within `paddle.DataParallel`, or the network itself."""
    return network._layers if isinstance(network, paddle.DataParallel) else network


def find_layer(network: nn.Layer, name: str, whose: str) -> nn.Layer:
    """Returns the layer of a structured name; an empty name is the network itself.

    Raises:
        InputError: there is no such layer, or hooks cannot observe it.
    """
    network = without_wrapper(network)
    layers = dict(network.named_sublayers(include_self=True))
    if name not in layers:
        raise InputError(f"Distillation: the {whose} has no layer {name!r}; {did_you_mean(name, filter(None, layers))}")
    parts = name.split(".") if name else []
    for above in (".".join(parts[:number]) for number in range(len(parts))):
        if hasattr(layers[above].forward, "rollback"):  # a StaticFunction
            raise InputError(
                f"Distillation: the layer {name!r} of the {whose} is compiled by paddle.jit.to_static and cannot be "
                "observed; compare the outputs of the whole network, or train without to_static"
            )
    return layers[name]
