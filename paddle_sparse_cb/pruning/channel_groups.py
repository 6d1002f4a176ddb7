"""Finds channels that can be permuted without changing what a network computes.

A convolution may compute its output channels in any order if all that read them follow: its bias, the batch norm and
the depthwise convolution behind it, the input channels of the next convolution. Where two outputs are added, the
channels of both belong together. The groups are found in the program of a forward pass. Channels that reach an operator
whose effect on them is not known here, or an output of the network, keep their order.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paddle

from ..errors import InputError
from ..utils.layers import eval_mode, keep_forwards
from ..utils.legacy_programs import legacy_program_format
from ..utils.weight_files import parse_program, tensor_details

# Operators that compute each channel in the same way from this channel alone.
_CHANNELWISE = frozenset(
    (
        "assign",
        "bilinear_interp_v2",
        "cast",
        "dropout",
        "elu",
        "gelu",
        "hard_sigmoid",
        "hard_swish",
        "leaky_relu",
        "mish",
        "nearest_interp_v2",
        "pool2d",
        "relu",
        "relu6",
        "scale",
        "sigmoid",
        "silu",
        "swish",
        "tanh",
    )
)
_ELEMENTWISE = frozenset(("elementwise_add", "elementwise_sub", "elementwise_mul", "elementwise_div"))
_LAYOUTS = ("", "NCHW", "AnyLayout")

_Slots = dict[str, list[str]]


@dataclass(frozen=True)
class ChannelSlice:
    """Consecutive channels of a parameter or running statistic.

    Attributes:
        name: `parameter.name`.
        axis: the axis of the channels.
        start: the first channel.
    """

    name: str
    axis: int
    start: int


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that have to be permuted together.

    Attributes:
        size: number of channels.
        slices: where they are; each slice has `size` channels.
    """

    size: int
    slices: tuple[ChannelSlice, ...]


def find_channel_groups(network: paddle.nn.Layer, input_spec: Sequence[Any]) -> list[ChannelGroup]:
    """Finds the groups of channels that can be permuted.

    Args:
        network: a layer that `paddle.jit.save` can export. What the training computes beyond the forward pass in
            evaluation mode must not depend on the order of inner channels.
        input_spec: the `paddle.static.InputSpec` of each input.

    Raises:
        InputError: the forward pass does not use a parameter of several values, so that nothing is known of its
            channels.
    """
    with tempfile.TemporaryDirectory() as folder, eval_mode(network), keep_forwards(network):
        with legacy_program_format(), paddle.utils.unique_name.guard():  # so that later layers get the same names
            paddle.jit.save(network, str(Path(folder, "model")), input_spec=list(input_spec))
        program = parse_program(Path(folder, "model"))
    tracer = _Tracer(program)
    for name, parameter in network.named_parameters():
        if parameter.size > 1 and parameter.name not in tracer.read:
            raise InputError(f"channels cannot be permuted: the forward pass does not use {name}")
    # Nothing is known of the channels that an operator of an inner block, such as that of a loop, reads.
    return tracer.groups() if len(program.blocks) == 1 else []


class _Segments:
    """Groups of channels, which are joined as it is found which of them belong together."""

    def __init__(self) -> None:
        self.size: list[int] = []
        self._parent: list[int] = []
        self._is_fixed: list[bool] = []

    def new(self, size: int, is_fixed: bool = False) -> list[int]:
        """Returns a new group."""
        self.size.append(size)
        self._parent.append(len(self._parent))
        self._is_fixed.append(is_fixed)
        return [len(self._parent) - 1]

    def root(self, group: int) -> int:
        """Returns the group that a group was joined with."""
        while self._parent[group] != group:
            group = self._parent[group]
        return group

    def fix(self, groups: Sequence[int]) -> None:
        """Keeps the channels of groups in their order."""
        for group in groups:
            self._is_fixed[self.root(group)] = True

    def is_fixed(self, group: int) -> bool:
        """Returns whether the channels of a group keep their order."""
        return self._is_fixed[self.root(group)]

    def join(self, first: Sequence[int], second: Sequence[int]) -> None:
        """Permutes two sequences of groups together, or not at all if they are divided differently."""
        if [self.size[group] for group in first] != [self.size[group] for group in second]:
            self.fix([*first, *second])
            return
        for one, other in zip(first, second):
            one, other = self.root(one), self.root(other)
            self._parent[other] = one
            self._is_fixed[one] = self._is_fixed[one] or self._is_fixed[other]


class _Tracer:
    """Follows the channels through the operators of a program."""

    def __init__(self, program: Any) -> None:
        block = program.blocks[0]
        self.shapes = {var.name: tuple(tensor_details(var).dims) for var in block.vars}
        self._parameters = {var.name for var in block.vars if var.persistable}
        self.read: set[str] = set()  # the variables that an operator reads
        self._segments = _Segments()
        self._activations: dict[str, list[int]] = {}  # the groups along axis 1
        self._axes: dict[tuple[str, int], list[int]] = {}  # the groups along an axis of a parameter
        for op in block.ops:
            inputs, outputs = _slots(op.inputs), _slots(op.outputs)
            self.read |= {name for names in inputs.values() for name in names}
            attributes = {attribute.name: attribute for attribute in op.attrs}
            layouts = [attributes[name].s for name in ("data_format", "data_layout") if name in attributes]
            is_known = all(layout in _LAYOUTS for layout in layouts)
            if not (is_known and self._follow(op.type, attributes, inputs, outputs)):
                self._fix_all(inputs, outputs)

    def groups(self) -> list[ChannelGroup]:
        """Returns the groups that can be permuted."""
        slices: dict[int, list[ChannelSlice]] = {}
        for (name, axis), segments in self._axes.items():
            start = 0
            for segment in segments:
                if self._segments.size[segment] > 1 and not self._segments.is_fixed(segment):
                    slices.setdefault(self._segments.root(segment), []).append(ChannelSlice(name, axis, start))
                start += self._segments.size[segment]
        return [ChannelGroup(self._segments.size[root], tuple(found)) for root, found in slices.items()]

    def _follow(self, kind: str, attributes: Mapping[str, Any], inputs: _Slots, outputs: _Slots) -> bool:
        """Follows the channels through an operator; returns whether its effect on them is known."""
        if kind in ("conv2d", "depthwise_conv2d"):
            return self._convolution(attributes["groups"].i, inputs, outputs)
        if kind == "batch_norm":
            channels = self._activations[outputs["Y"][0]] = self._of(inputs["X"][0])
            for slot in ("Scale", "Bias", "Mean", "Variance"):
                self._bind(inputs[slot][0], 0, channels)
            return True
        if kind in _CHANNELWISE:
            source, target = inputs["X"][0], outputs["Out"][0]
            self._activations[target] = self._of(source)
            return len(self.shapes[source]) == 4 == len(self.shapes[target])
        if kind in _ELEMENTWISE:
            return self._elementwise(attributes, inputs["X"][0], inputs["Y"][0], outputs["Out"][0])
        if kind == "reshape2":
            return self._bias(inputs["X"][0], outputs["Out"][0])
        if kind in ("concat", "split") and attributes["axis"].i == 1 and not inputs.get("AxisTensor"):
            return self._concat(inputs["X"], outputs["Out"])
        return False

    def _convolution(self, groups: int, inputs: _Slots, outputs: _Slots) -> bool:
        weight, source, target = inputs["Filter"][0], inputs["Input"][0], outputs["Output"][0]
        if weight not in self._parameters:
            return False
        rows, columns = self.shapes[weight][:2]
        if groups == 1:
            self._bind(weight, 1, self._of(source))
            self._activations[target] = self._axes.setdefault((weight, 0), self._segments.new(rows))
        elif columns == 1 and rows == groups:  # depthwise
            self._activations[target] = self._of(source)
            self._bind(weight, 0, self._activations[target])
        else:
            return False
        for bias in inputs.get("Bias", []):
            self._bind(bias, 0, self._activations[target])
        return True

    def _elementwise(self, attributes: Mapping[str, Any], first: str, second: str, target: str) -> bool:
        shape, other = self.shapes[first], self.shapes[second]
        if len(shape) != 4 or first in self._parameters:
            return False
        self._activations[target] = self._of(first)
        if math.prod(other) == 1:
            return True
        if second in self._parameters:
            axis = {1: 0, 4: 1}.get(len(other), -1)
            is_vector = math.prod(other) == shape[1] == other[axis] and (axis == 1 or attributes["axis"].i == 1)
            if is_vector:
                self._bind(second, axis, self._of(first))
            return is_vector
        if len(other) != 4 or other[1] not in (1, shape[1]):
            return False
        if other[1] == shape[1]:
            self._segments.join(self._of(first), self._of(second))
        return True

    def _bias(self, source: str, target: str) -> bool:
        """Follows the bias of a convolution, which is reshaped from [c] to [1, c, 1, 1]."""
        shape = self.shapes[source]
        if source not in self._parameters or self.shapes[target] != (1, *shape, 1, 1):
            return False
        self._activations[target] = self._axes.setdefault((source, 0), self._segments.new(shape[0]))
        return True

    def _concat(self, sources: list[str], targets: list[str]) -> bool:
        """Follows channels that are put together, or divided between groups."""
        if any(len(self.shapes[name]) != 4 for name in (*sources, *targets)):
            return False
        channels = [group for name in sources for group in self._of(name)]
        for name in targets:
            taken: list[int] = []
            while channels and sum(self._segments.size[group] for group in taken) < self.shapes[name][1]:
                taken.append(channels.pop(0))
            if sum(self._segments.size[group] for group in taken) != self.shapes[name][1]:
                return False  # divided within a group
            self._activations[name] = taken
        return True

    def _of(self, name: str) -> list[int]:
        """Returns the groups of an activation; nothing is known of the inputs of the network."""
        if name not in self._activations:
            shape = self.shapes.get(name, ())
            self._activations[name] = self._segments.new(shape[1] if len(shape) > 1 else 1, is_fixed=True)
        return self._activations[name]

    def _bind(self, parameter: str, axis: int, channels: list[int]) -> None:
        """Permutes an axis of a parameter together with the channels that it belongs to."""
        known = self._axes.setdefault((parameter, axis), channels)
        self._segments.join(known, channels)

    def _fix_all(self, inputs: _Slots, outputs: _Slots) -> None:
        """Keeps the order of all channels that an operator reads or writes."""
        for name in (one for names in (*inputs.values(), *outputs.values()) for one in names):
            if name in self._parameters:
                for axis, size in enumerate(self.shapes[name]):
                    self._bind(name, axis, self._segments.new(size, is_fixed=True))
            elif name in self.shapes:
                self._segments.fix(self._of(name))


def _slots(slots: Any) -> _Slots:
    return {slot.parameter: list(slot.arguments) for slot in slots}
