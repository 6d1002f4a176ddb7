"""Converts an exported model to ONNX with paddle2onnx, and reads the layers of an ONNX model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from ..errors import InputError
from ..utils.files import atomic_write
from ..utils.weight_files import load_parameters, parse_program
from .folding import BatchNorm
from .isolated import require_modules, run_isolated

OPSET = 14  # the first with HardSwish, without which paddle2onnx 1.2 aborts on PicoDet

# By default paddle2onnx 2 optimizes with Polygraphy, which it tells to install packages with pip: they replaced numpy.
_EXPORT = f"""
import inspect
import paddle2onnx
parameters = inspect.signature(paddle2onnx.export).parameters
paddle2onnx.export(
    sys.argv[1], sys.argv[2], sys.argv[3], opset_version={OPSET}, auto_upgrade_opset=False, verbose=False,
    enable_onnx_checker=True, **({{"optimize_tool": "none"}} if "optimize_tool" in parameters else {{}}),
)
"""
_MAX_CHAIN = 8  # copies and reshapes in a row; a damaged model may have circles
_RESHAPES = ("Identity", "Reshape", "Squeeze", "Unsqueeze")


def export_onnx(prefix: Path, output: Path) -> Path:
    """Converts an exported model to ONNX.

    paddle2onnx ends the process at some errors, so it runs in a process of its own.

    Args:
        prefix: the exported model's path without `.pdmodel`.
        output: the `.onnx` file to write. It appears only when it is complete.

    Returns:
        `output`.

    Raises:
        InputError: `.pdmodel` is missing or damaged.
        PipelineError: paddle2onnx is not installed, or cannot convert the model.
    """
    require_modules("mnn", "paddle2onnx")
    parse_program(prefix)
    with atomic_write(output) as scratch:
        files = [Path(f"{prefix}.pdmodel"), Path(f"{prefix}.pdiparams"), scratch]
        run_isolated(f"paddle2onnx failed on {prefix}.pdmodel", _EXPORT, files, expected=scratch)
    return output


@dataclass(frozen=True)
class OnnxLayer:
    """A convolution or a linear layer of an ONNX model.

    Attributes:
        outputs: the variables of its result, before and after the bias is added, and copies of it.
        weight: the name of its weight, which is that of the variable in the exported program.
        is_linear: whether the weight is [inputs, outputs] and not [outputs, inputs, height, width].
        bias: the bias; None if there is none.
        norm: the batch norm that alone reads the result; None if there is none.
    """

    outputs: tuple[str, ...]
    weight: str
    is_linear: bool
    bias: np.ndarray | None
    norm: BatchNorm | None


@dataclass(frozen=True)
class OnnxModel:
    """What is known of an ONNX model: its constants by name, and the layers with a constant weight."""

    constants: dict[str, np.ndarray]
    layers: tuple[OnnxLayer, ...]


def read_onnx(path: Path) -> OnnxModel:
    """Reads an ONNX model; nothing is executed.

    Raises:
        InputError: the file is missing or damaged, or refers to other files.
        PipelineError: the package `onnx` is not installed.
    """
    require_modules("mnn", "onnx")
    import onnx

    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        graph = onnx.load(str(path), load_external_data=False).graph
        constants = dict(_constants(graph))
        return OnnxModel(constants, tuple(_layers(graph, constants)))
    # A valid message, but something that an operator must have is missing.
    except (DecodeError, AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not an ONNX model, or damaged: {type(error).__name__} {error}") from None


def _constants(graph: Any) -> Iterator[tuple[str, np.ndarray]]:
    from onnx import numpy_helper

    tensors = [(tensor.name, tensor) for tensor in graph.initializer]
    tensors += [
        (node.output[0], attribute.t)
        for node in graph.node
        if node.op_type == "Constant"
        for attribute in node.attribute
        if attribute.name == "value"
    ]
    for name, tensor in tensors:
        if tensor.external_data:
            raise ValueError(f"{name} is stored in another file")
        yield name, numpy_helper.to_array(tensor)


def _layers(graph: Any, constants: dict[str, np.ndarray]) -> Iterator[OnnxLayer]:
    readers = Counter(name for node in graph.node for name in node.input)
    only_reader = {name: node for node in graph.node for name in node.input if readers[name] == 1}
    reshaped = {node.output[0]: node.input[0] for node in graph.node if node.op_type in _RESHAPES}

    def origin(name: str) -> str:
        """Returns the constant that a variable is a reshaped copy of, or another variable."""
        for _ in range(_MAX_CHAIN):
            name = reshaped.get(name, name)
        return name

    for node in graph.node:
        if node.op_type not in ("Conv", "MatMul") or origin(node.input[1]) not in constants:
            continue
        outputs = [node.output[0]]
        bias = constants[node.input[2]] if len(node.input) > 2 else None
        following = only_reader.get(outputs[0])
        if following is not None and following.op_type == "Add" and bias is None:
            other = origin(following.input[1])
            if following.input[0] == outputs[0] and other in constants:
                bias = constants[other].reshape(-1)
                outputs.append(following.output[0])
        for _ in range(_MAX_CHAIN):
            following = only_reader.get(outputs[-1])
            if following is None or following.op_type != "Identity":
                break
            outputs.append(following.output[0])
        yield OnnxLayer(
            tuple(outputs),
            origin(node.input[1]),
            node.op_type == "MatMul",
            bias,
            None if following is None else _norm(following, constants),
        )


def _norm(node: Any, constants: dict[str, np.ndarray]) -> BatchNorm | None:
    if node.op_type != "BatchNormalization":
        return None
    epsilon = next((attribute.f for attribute in node.attribute if attribute.name == "epsilon"), 1e-5)
    scale, shift, mean, variance = (constants[name] for name in node.input[1:5])
    return BatchNorm(scale, shift, mean, variance, epsilon)


def find_differing_parameters(model: OnnxModel, prefix: Path) -> list[str]:
    """Compares the constants of an ONNX model with the parameters of the exported model that it was made from.

    Args:
        model: the ONNX model.
        prefix: the exported model's path without `.pdmodel`.

    Returns:
        The variables whose values differ in any bit, and those of weights that the exported model does not have.

    Raises:
        InputError: a file of the exported model is missing or damaged.
    """
    parameters = load_parameters(prefix)
    unknown = {layer.weight for layer in model.layers} - parameters.keys()
    differing = {
        name
        for name, array in parameters.items()
        if name in model.constants
        and (array.dtype, array.shape, array.tobytes())
        != (model.constants[name].dtype, model.constants[name].shape, model.constants[name].tobytes())
    }
    return sorted(unknown | differing)
