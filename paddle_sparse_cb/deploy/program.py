"""The program of an exported model as its `.pdmodel` holds it: what Paddle-Lite will meet there.

Read by the protobuf classes that Paddle brings, so that nothing is executed and Paddle's version does not matter.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paddle.base.proto import framework_pb2

from ..errors import InputError
from ..files import replacing
from ..stored import TENSOR, load_names, parse_program, tensor_details

# What Paddle leaves out of an exported program, and Paddle-Lite's optimizer aborts or crashes without: attributes with
# the only value that they have in Paddle, and outputs that only a training reads.
_LEFT_OUT_ATTRIBUTES = {"relu6": ("threshold", 6.0), "swish": ("beta", 1.0)}
_LEFT_OUT_OUTPUTS = {"flatten_contiguous_range": ("XShape",), "instance_norm": ("SavedMean", "SavedVariance")}


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
    block, names = parse_program(prefix).blocks[0], load_names(prefix)
    try:
        return _read(block, names, prefix)
    # Whole as a message, but not what it says: variables, sizes or attributes that an operator has to have.
    except InputError:
        raise
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise InputError(f"{prefix}.pdmodel: damaged: {type(error).__name__} {error}") from None


def _read(block: Any, names: dict[str, str], prefix: Path) -> Program:
    shapes = {var.name: tuple(tensor_details(var).dims) for var in block.vars}
    stored = {var.name for var in block.vars if var.persistable}
    feeds = [name for op in block.ops if op.type == "feed" for name in _variables(op.outputs)["Out"]]
    used = [(op, _source(_variables(op.inputs)["Filter"][0])) for op in block.ops
            if op.type in ("conv2d", "depthwise_conv2d")]
    calls = Counter(weight for _, weight in used)
    found = {}
    for op, weight in used:
        if weight in stored and weight not in names:
            raise InputError(f"{prefix}.pdiparams.info: damaged, or of another model: it has no name for {weight}")
        if weight in stored:
            name, shape = names[weight], shapes[weight]
            _, _, height, width = shapes[_variables(op.inputs)["Input"][0]]
            found[name] = Convolution(weight, name, shape, height * width, calls[weight], _may_be_sparse(op, shape))
    return Program({name: shapes[name] for name in feeds}, Counter(op.type for op in block.ops), found)


def add_left_out(pdmodel: Path) -> None:
    """Puts into an exported program what Paddle-Lite's optimizer misses there.

    The program computes the same. Without it the optimizer aborts on `nn.ReLU6`, `nn.Swish` and `nn.InstanceNorm2D`,
    and crashes on a `flatten` that no linear layer follows.
    """
    program = parse_program(pdmodel.with_suffix(""))
    for block in program.blocks:
        for index, op in enumerate(block.ops):
            attribute, value = _LEFT_OUT_ATTRIBUTES.get(op.type, ("", 0.0))
            if attribute and attribute not in {one.name for one in op.attrs}:
                op.attrs.add(name=attribute, type=framework_pb2.FLOAT, f=value)
            for output in _LEFT_OUT_OUTPUTS.get(op.type, ()):
                if not _variables(op.outputs).get(output):
                    variable = block.vars.add(name=f"left_out_{index}_{output}", persistable=False)
                    variable.type.type = TENSOR
                    tensor_details(variable).data_type = framework_pb2.VarType.FP32
                    op.outputs.add(parameter=output).arguments.append(variable.name)
    with replacing(pdmodel) as scratch:
        scratch.write_bytes(program.SerializeToString())


def _variables(slots: Any) -> dict[str, list[str]]:
    return {slot.parameter: list(slot.arguments) for slot in slots}


def _source(variable: str) -> str:
    """The weight behind a variable: quantisation puts operators between the two."""
    return variable.partition(".quantized")[0]


def _may_be_sparse(op: Any, shape: tuple[int, ...]) -> bool:
    attributes = {one.name: one for one in op.attrs}
    return (op.type == "conv2d" and shape[2:] == (1, 1) and attributes["groups"].i == 1
            and set(attributes["strides"].ints) == {1} and set(attributes["paddings"].ints) == {0})
