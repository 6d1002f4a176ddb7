"""Reads the program of an exported model: its inputs, operators and convolutions.

`.pdmodel` is parsed with the protobuf classes that come with Paddle. Nothing is executed, and the version of Paddle
that wrote the file does not matter.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from paddle.base.proto.framework_pb2 import VarType

from ..errors import InputError
from ..utils.weight_files import load_structured_names, parse_program, tensor_details

_DTYPES = {
    VarType.BOOL: "bool",
    VarType.INT32: "int32",
    VarType.INT64: "int64",
    VarType.FP16: "float16",
    VarType.FP32: "float32",
    VarType.FP64: "float64",
}
# Operators that read or write files, print, communicate, or call Python.
_SIDE_EFFECTS = re.compile(
    r"(load|save|print|py_|read_file|read$|run_program|create_.*reader|enqueue|dequeue|queue_|delete_var"
    r"|barrier|.*_barrier$|send|recv|[pc]_(send|recv)|partial_(send|recv)|c_(comm|gen|sync|wait)|gen_"
    r"|.*listen_and_serv|pull_|push_|distributed_(lookup|push))"
)


@dataclass(frozen=True)
class Convolution:
    """A convolution's weight in a program, and how the weight is used.

    Attributes:
        variable: the weight's variable in the program, such as `conv2d_0.w_0`.
        name: the weight's structured name in the network, such as `backbone.conv1.weight`.
        shape: [output channels, input channels per group, height, width].
        pixels: height times width of the convolution's input.
        calls: the number of operators that use the weight.
        may_be_sparse: whether Paddle-Lite would choose a sparse kernel, given enough zeros
            (lite/core/optimizer/mir/sparse_conv_detect_pass.cc).
    """

    variable: str
    name: str
    shape: tuple[int, ...]
    pixels: int
    calls: int
    may_be_sparse: bool


@dataclass(frozen=True)
class Program:
    """Summary of a program.

    Attributes:
        inputs: the shape of each input; -1 marks a dynamic dimension.
        op_counts: the number of operators of each type.
        convolutions: the convolutions by the structured names of their weights.
    """

    inputs: dict[str, tuple[int, ...]]
    op_counts: Counter[str]
    convolutions: dict[str, Convolution]


def read_program(prefix: Path) -> Program:
    """Reads the program of an exported model.

    Args:
        prefix: the model's path without `.pdmodel`. `.pdiparams.info`, which has the structured names, is read too.

    Raises:
        InputError: a file is missing or damaged, or the two are of different models.
    """
    block, names = parse_program(prefix).blocks[0], load_structured_names(prefix)
    try:
        return _summarize(block, names, prefix)
    except InputError:
        raise
    # A valid message, but a variable, dimension or attribute that an operator must have is missing.
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise InputError(f"{prefix}.pdmodel: damaged: {type(error).__name__} {error}") from None


def _summarize(block: Any, names: dict[str, str], prefix: Path) -> Program:
    shapes = {var.name: tuple(tensor_details(var).dims) for var in block.vars}
    persistable = {var.name for var in block.vars if var.persistable}
    uses = [
        (op, _weight_variable(slot_arguments(op.inputs)["Filter"][0]))
        for op in block.ops
        if op.type in ("conv2d", "depthwise_conv2d")
    ]
    calls = Counter(weight for _, weight in uses)
    convolutions = {}
    for op, weight in uses:
        if weight not in persistable:
            continue
        if weight not in names:
            raise InputError(f"{prefix}.pdiparams.info: damaged, or of another model: it has no name for {weight}")
        name, shape = names[weight], shapes[weight]
        _, _, height, width = shapes[slot_arguments(op.inputs)["Input"][0]]
        convolutions[name] = Convolution(weight, name, shape, height * width, calls[weight], _may_be_sparse(op, shape))
    return Program(input_shapes(block), Counter(op.type for op in block.ops), convolutions)


def read_inputs(prefix: Path) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each input of an exported model; -1 marks a dynamic dimension.

    Args:
        prefix: the model's path without `.pdmodel`, which is the only file that is read.

    Raises:
        InputError: the file is missing or damaged.
    """
    block = parse_program(prefix).blocks[0]
    try:
        return input_shapes(block)
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise InputError(f"{prefix}.pdmodel: damaged: {type(error).__name__} {error}") from None


def input_shapes(block: Any) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each input of a program, in the order of the network's; -1 marks a dynamic dimension.

    Args:
        block: the first block of a `ProgramDesc` message.
    """
    return {name: tuple(tensor.dims) for name, tensor in _input_tensors(block).items()}


def read_input_types(prefix: Path) -> dict[str, np.dtype[Any]]:
    """Returns the dtype of each input of an exported model.

    Args:
        prefix: the model's path without `.pdmodel`, which is the only file that is read.

    Raises:
        InputError: the file is missing or damaged, or an input has a dtype that NumPy lacks.
    """
    block = parse_program(prefix).blocks[0]
    try:
        return {name: np.dtype(_DTYPES[tensor.data_type]) for name, tensor in _input_tensors(block).items()}
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise InputError(f"{prefix}.pdmodel: damaged: {type(error).__name__} {error}") from None


def _input_tensors(block: Any) -> dict[str, Any]:
    """The messages with dtype and dims; the operators that feed them are in reverse order in Paddle's programs."""
    feeds = [op for op in block.ops if op.type == "feed"]
    feeds.sort(key=lambda op: next(attribute.i for attribute in op.attrs if attribute.name == "col"))
    names = [name for op in feeds for name in slot_arguments(op.outputs)["Out"]]
    tensors = {var.name: tensor_details(var) for var in block.vars if var.name in names}
    return {name: tensors[name] for name in names}


def check_no_side_effects(prefix: Path) -> None:
    """Checks that running a program only computes: an operator could also write a file or open a connection.

    Args:
        prefix: the model's path without `.pdmodel`.

    Raises:
        InputError: the program is missing or damaged, or has such an operator, in a nested block too.
    """
    for block in parse_program(prefix).blocks:
        for op in block.ops:
            if _SIDE_EFFECTS.match(op.type):
                raise InputError(f"{prefix}.pdmodel: will not be run: its operator {op.type!r} does more than compute")


def slot_arguments(slots: Any) -> dict[str, list[str]]:
    """Maps each slot of an operator's `inputs` or `outputs`, such as `Filter`, to its variables."""
    return {slot.parameter: list(slot.arguments) for slot in slots}


def _weight_variable(variable: str) -> str:
    """Undoes the renaming of quantization, which inserts operators between a weight and its convolution."""
    return variable.partition(".quantized")[0]


def _may_be_sparse(op: Any, shape: tuple[int, ...]) -> bool:
    attributes = {attribute.name: attribute for attribute in op.attrs}
    return (
        op.type == "conv2d"
        and shape[2:] == (1, 1)
        and attributes["groups"].i == 1
        and set(attributes["strides"].ints) == {1}
        and set(attributes["paddings"].ints) == {0}
    )
