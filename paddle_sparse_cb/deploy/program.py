"""The program of an exported model as its `.pdmodel` holds it: what Paddle-Lite will meet there.

Read by the protobuf classes that Paddle brings, so that nothing is executed and Paddle's version does not matter.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from paddle.base.proto import framework_pb2

from ..errors import InputError
from ..files import replacing
from ..stored import load_arrays

# What Paddle-Lite insists on and Paddle leaves out because it is the only value there: operator -> attribute.
_LEFT_OUT = {"relu6": ("threshold", 6.0), "swish": ("beta", 1.0)}


@dataclass(frozen=True)
class Convolution:
    """A convolution's weight in a program, and how it is used.

    Attributes:
        variable: the name of the weight in the program.
        name: its structured name, the network's own.
        shape: output channels, input channels a group, height, width.
        pixels: height times width of the input.
        calls: how many operators use it.
        may_be_sparse: whether Paddle-Lite would make it sparse if it had enough zeros
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
    """What matters of a program to Paddle-Lite.

    Attributes:
        inputs: the shape of each input; -1 is a size that is not fixed.
        kinds: how often each operator occurs.
        convolutions: by the structured names of their weights.
    """

    inputs: dict[str, tuple[int, ...]]
    kinds: Counter[str]
    convolutions: dict[str, Convolution]


def read_program(prefix: Path) -> Program:
    """Reads the program of an exported model.

    Args:
        prefix: its path without `.pdmodel`; `.pdiparams.info` lies beside it.

    Raises:
        InputError: a file is missing or damaged.
    """
    block = _parse(Path(f"{prefix}.pdmodel")).blocks[0]
    info = load_arrays(f"{prefix}.pdiparams.info")
    shapes = {var.name: tuple(var.type.lod_tensor.tensor.dims) for var in block.vars}
    feeds = [name for op in block.ops if op.type == "feed" for name in _variables(op.outputs)["Out"]]
    used = [(op, _source(_variables(op.inputs)["Filter"][0])) for op in block.ops
            if op.type in ("conv2d", "depthwise_conv2d")]
    calls = Counter(weight for _, weight in used)
    found = {}
    for op, weight in used:
        if weight in info:
            name, shape = str(info[weight]["structured_name"]), shapes[weight]
            height, width = shapes[_variables(op.inputs)["Input"][0]][2:]
            found[name] = Convolution(weight, name, shape, height * width, calls[weight], _may_be_sparse(op, shape))
    return Program({name: shapes[name] for name in feeds}, Counter(op.type for op in block.ops), found)


def add_left_out_attributes(pdmodel: Path) -> None:
    """Writes into an exported program what Paddle-Lite's optimizer misses there and would abort for.

    Paddle 2.6 and 3 leave the threshold of `nn.ReLU6` and the beta of `nn.Swish` out: they are constants to Paddle.
    """
    program = _parse(pdmodel)
    added = False
    for op in (op for block in program.blocks for op in block.ops if op.type in _LEFT_OUT):
        name, value = _LEFT_OUT[op.type]
        if not any(attribute.name == name for attribute in op.attrs):
            op.attrs.add(name=name, type=framework_pb2.FLOAT, f=value)
            added = True
    if added:
        with replacing(pdmodel) as scratch:
            scratch.write_bytes(program.SerializeToString())


def _parse(pdmodel: Path) -> Any:
    if not pdmodel.is_file():
        raise InputError(f"{pdmodel}: no such file")
    program = framework_pb2.ProgramDesc()
    try:
        program.ParseFromString(pdmodel.read_bytes())
    except DecodeError:
        raise InputError(f"{pdmodel}: no program of Paddle's, or a damaged one") from None
    if not program.blocks:
        raise InputError(f"{pdmodel}: a program without operators")
    return program


def _variables(slots: Any) -> dict[str, list[str]]:
    return {slot.parameter: list(slot.arguments) for slot in slots}


def _source(variable: str) -> str:
    """The weight behind a variable: quantisation puts operators between the two."""
    return variable.partition(".quantized")[0]


def _may_be_sparse(op: Any, shape: tuple[int, ...]) -> bool:
    attributes = {one.name: one for one in op.attrs}
    return (op.type == "conv2d" and shape[2:] == (1, 1) and attributes["groups"].i == 1
            and set(attributes["strides"].ints) == {1} and set(attributes["paddings"].ints) == {0})
