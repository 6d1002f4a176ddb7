"""Rewrites an exported program into an equivalent one that Paddle-Lite 2.13 optimizes and computes correctly."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from paddle.base.proto import framework_pb2

from ...utils.files import atomic_write
from ...utils.weight_files import TENSOR, parse_program, tensor_details
from ..program import slot_arguments
from .pooling import replace_adaptive_pools

# What Paddle omits from an exported program and Paddle-Lite's optimizer aborts or crashes without: attributes, with the
# only value they have in Paddle, and outputs, which are read in training only.
_OMITTED_ATTRIBUTES = {"relu6": ("threshold", 6.0), "swish": ("beta", 1.0)}
_OMITTED_OUTPUTS = {"flatten_contiguous_range": ("XShape",), "instance_norm": ("SavedMean", "SavedVariance")}


def patch_for_lite(pdmodel: Path) -> None:
    """Rewrites a `.pdmodel` in place; the program computes the same as before.

    - Attributes and outputs without which the optimizer aborts (`nn.ReLU6`, `nn.Swish`, `nn.InstanceNorm2D`) or crashes
      (`flatten` with no linear layer after it) are added.
    - Adjacent convolutions are separated, since the optimizer would merge them: into one dense convolution, with wrong
      results for 3x3 kernels and groups.
    - Adaptive pooling that the ARM kernels compute wrongly is replaced (see `pooling`).
    - The Python call stack that Paddle stores with each operator is removed. It contains paths of the training machine.

    Raises:
        InputError: the file is missing or damaged, or contains adaptive pooling that cannot be replaced.
    """
    program = parse_program(pdmodel.with_suffix(""))
    for block in program.blocks:
        _remove_call_stacks(block)
        _add_omitted(block)
        _separate_convolutions(block)
    replace_adaptive_pools(program, pdmodel.name)
    with atomic_write(pdmodel) as scratch:
        scratch.write_bytes(program.SerializeToString())


def _remove_call_stacks(block: Any) -> None:
    for op in block.ops:
        kept = [attribute for attribute in op.attrs if attribute.name != "op_callstack"]
        del op.attrs[:]
        op.attrs.extend(kept)


def _add_omitted(block: Any) -> None:
    for index, op in enumerate(block.ops):
        name, value = _OMITTED_ATTRIBUTES.get(op.type, ("", 0.0))
        if name and name not in {attribute.name for attribute in op.attrs}:
            op.attrs.add(name=name, type=framework_pb2.FLOAT, f=value)
        for output in _OMITTED_OUTPUTS.get(op.type, ()):
            if not slot_arguments(op.outputs).get(output):
                variable = block.vars.add(name=f"left_out_{index}_{output}", persistable=False)
                variable.type.type = TENSOR
                tensor_details(variable).data_type = framework_pb2.VarType.FP32
                op.outputs.add(parameter=output).arguments.append(variable.name)


def _separate_convolutions(block: Any) -> None:
    """Inserts an identity between two convolutions with nothing but a batch norm between them.

    lite/core/optimizer/mir/fusion/conv_conv_fuser.cc looks for one pair that is worth merging, and then merges every
    pair, whatever the second convolution is. The pass runs after batch norms have been folded and before the identity
    is removed, so the `.nb` contains no trace of it.
    """
    producers = {name: op for op in block.ops for names in slot_arguments(op.outputs).values() for name in names}
    readers = Counter(name for op in block.ops for names in slot_arguments(op.inputs).values() for name in names)
    variables = {var.name: var for var in block.vars}

    def sole_producer(variable: str, op_type: str) -> Any:
        """Returns the producer of a variable with a single reader if it has the given type, else None."""
        producer = producers.get(variable)
        return producer if producer is not None and producer.type == op_type and readers[variable] == 1 else None

    for index, op in reversed(list(enumerate(block.ops))):
        if op.type != "conv2d":
            continue
        source = slot_arguments(op.inputs)["Input"][0]
        norm = sole_producer(source, "batch_norm")
        if sole_producer(source if norm is None else slot_arguments(norm.inputs)["X"][0], "conv2d") is None:
            continue
        separated = block.vars.add()
        separated.CopyFrom(variables[source])
        separated.name = f"{source}.apart"
        next(slot for slot in op.inputs if slot.parameter == "Input").arguments[0] = separated.name
        block.ops.insert(index, _identity(source, separated.name))


def _identity(source: str, target: str) -> Any:
    op = framework_pb2.OpDesc(type="scale")
    op.inputs.add(parameter="X").arguments.append(source)
    op.outputs.add(parameter="Out").arguments.append(target)
    op.attrs.add(name="scale", type=framework_pb2.FLOAT, f=1.0)
    op.attrs.add(name="bias", type=framework_pb2.FLOAT, f=0.0)
    op.attrs.add(name="bias_after_scale", type=framework_pb2.BOOLEAN, b=True)
    return op
