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
from ..utils.files import atomic_write
from ..utils.weight_files import TENSOR, load_structured_names, parse_program, tensor_details

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
    block, names = parse_program(prefix).blocks[0], load_structured_names(prefix)
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


def patch_for_lite(pdmodel: Path) -> None:
    """Changes an exported program so that Paddle-Lite's optimizer takes it; it computes the same.

    Paddle writes beside each operator where in which files it was called; that is left out, and with it the paths of
    the machine that trained.

    Without what is added here the optimizer aborts on `nn.ReLU6`, `nn.Swish` and `nn.InstanceNorm2D`, and crashes on a
    `flatten` that no linear layer follows. Without what is put between convolutions it multiplies some of them into
    one: dense, wrong with a 3x3 kernel or groups, and aborting on a stride or padding.
    """
    program = parse_program(pdmodel.with_suffix(""))
    for block in program.blocks:
        _leave_out_calls(block)
        _add_left_out(block)
        _part_convolutions(block)
    with atomic_write(pdmodel) as scratch:
        scratch.write_bytes(program.SerializeToString())


def _leave_out_calls(block: Any) -> None:
    for op in block.ops:
        kept = [one for one in op.attrs if one.name != "op_callstack"]
        del op.attrs[:]
        op.attrs.extend(kept)


def _add_left_out(block: Any) -> None:
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


def _part_convolutions(block: Any) -> None:
    """Puts an operator between two convolutions that have nothing but a batch norm between them.

    lite/core/optimizer/mir/fusion/conv_conv_fuser.cc looks for one pair that is worth merging, and then merges every
    pair, whatever the second one is. It folds batch norms before, and removes the operator afterwards: nothing is left
    of it in the `.nb`.
    """
    makers = {name: op for op in block.ops for names in _variables(op.outputs).values() for name in names}
    readers = Counter(name for op in block.ops for names in _variables(op.inputs).values() for name in names)
    variables = {var.name: var for var in block.vars}

    def alone(variable: str, kind: str) -> Any:
        """The operator that makes a variable for one reader, if it is of a kind."""
        maker = makers.get(variable)
        return maker if maker is not None and maker.type == kind and readers[variable] == 1 else None

    for index, op in reversed(list(enumerate(block.ops))):
        if op.type != "conv2d":
            continue
        source = _variables(op.inputs)["Input"][0]
        norm = alone(source, "batch_norm")
        if alone(source if norm is None else _variables(norm.inputs)["X"][0], "conv2d") is None:
            continue
        apart = block.vars.add()
        apart.CopyFrom(variables[source])
        apart.name = f"{source}.apart"
        next(slot for slot in op.inputs if slot.parameter == "Input").arguments[0] = apart.name
        block.ops.insert(index, _identity(source, apart.name))


def _identity(source: str, target: str) -> Any:
    op = framework_pb2.OpDesc(type="scale")
    op.inputs.add(parameter="X").arguments.append(source)
    op.outputs.add(parameter="Out").arguments.append(target)
    op.attrs.add(name="scale", type=framework_pb2.FLOAT, f=1.0)
    op.attrs.add(name="bias", type=framework_pb2.FLOAT, f=0.0)
    op.attrs.add(name="bias_after_scale", type=framework_pb2.BOOLEAN, b=True)
    return op


def _variables(slots: Any) -> dict[str, list[str]]:
    return {slot.parameter: list(slot.arguments) for slot in slots}


def _source(variable: str) -> str:
    """The weight behind a variable: quantisation puts operators between the two."""
    return variable.partition(".quantized")[0]


def _may_be_sparse(op: Any, shape: tuple[int, ...]) -> bool:
    attributes = {one.name: one for one in op.attrs}
    return (op.type == "conv2d" and shape[2:] == (1, 1) and attributes["groups"].i == 1
            and set(attributes["strides"].ints) == {1} and set(attributes["paddings"].ints) == {0})
