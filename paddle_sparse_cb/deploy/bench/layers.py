"""Where the time goes: milliseconds of each layer, dense and sparse, measured by MNN's callbacks.

MNN calls back before and after each operator (`runSessionWithCallBackInfo`). The callbacks cost about a microsecond for
each operator, which is included.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import PipelineError
from ...utils.weight_files import load_structured_names, parse_program, tensor_details
from ..program import slot_arguments
from .engines import make_inputs
from .machine import this_machine

_LEAST_ROUNDS = 10
# MNN's types of operators by what they are for; the others are summed up as "other".
_PURPOSES = {
    "UnaryOp": "activations",
    "ReLU": "activations",
    "ReLU6": "activations",
    "PReLU": "activations",
    "Raster": "layout, concatenation, split",
    "Pooling": "pooling",
    "Interp": "resizing",
    "BinaryOp": "element-wise",
    "Eltwise": "element-wise",
}


@dataclass(frozen=True)
class LayerModel:
    """An MNN model whose layers are timed.

    Attributes:
        path: the `.mnn` file.
        kind: `dense` or `sparse`.
        ratio: fraction of zeros in the pruned weights.
        block: rows and columns of the blocks of zeros.
    """

    path: Path
    kind: str
    ratio: float | None = None
    block: tuple[int, int] = (1, 1)


@dataclass
class _Operator:
    """The times of one operator in one model, in seconds, and the shape of its output."""

    type: str
    shape: tuple[int, ...] = ()
    seconds: list[float] = field(default_factory=list)


class LayerTimer:
    """An MNN model on one thread that times its operators.

    Args:
        path: the `.mnn` file.
    """

    def __init__(self, path: Path) -> None:
        import MNN

        self._path = path
        self._interpreter = MNN.Interpreter(str(path))
        self._session = self._interpreter.createSession({"backend": "CPU", "numThread": 1, "precision": 1})
        inputs = self._interpreter.getSessionInputAll(self._session)
        arrays = make_inputs({name: tuple(tensor.getShape()) for name, tensor in inputs.items()}, path)
        for name, tensor in inputs.items():
            host = MNN.Tensor(tensor, MNN.Tensor_DimensionType_Caffe)
            np.copyto(host.getNumpyData(), arrays[name])
            tensor.copyFrom(host)
        self.operators: dict[str, _Operator] = {}
        self._start = 0.0

    def run(self) -> None:
        """Runs the model once and adds the time of each operator.

        Raises:
            PipelineError: MNN failed.
        """
        if self._interpreter.runSessionWithCallBackInfo(self._session, self._before, self._after) != 0:
            raise PipelineError(f"{self._path}: MNN failed to run the model")

    def _before(self, tensors: Any, info: Any) -> bool:
        self._start = time.perf_counter()
        return True

    def _after(self, tensors: Any, info: Any) -> bool:
        seconds = time.perf_counter() - self._start
        operator = self.operators.get(info.getName())
        if operator is None:
            shape = tuple(tensors[0].getShape()) if tensors else ()
            operator = self.operators[info.getName()] = _Operator(info.getType(), shape)
        operator.seconds.append(seconds)
        return True

    def milliseconds(self) -> dict[str, float]:
        """The median time of each operator over all runs, in milliseconds."""
        return {name: float(np.median(operator.seconds)) * 1e3 for name, operator in self.operators.items()}


def measure_layers(
    models: Sequence[LayerModel], prefix: Path, pruned: Sequence[str], seconds: float = 10.0
) -> dict[str, Any]:
    """Times the layers of MNN models of one network, in turns.

    Args:
        models: one dense model, followed by sparse ones.
        prefix: the exported model that they were converted from, without `.pdmodel`, which has the layers' names.
        pruned: structured names of the pruned weights.
        seconds: wall time to spend.

    Returns:
        Plain values that can be saved as JSON: `machine`, `runtime`, `threads`, `models` (the sum of the layers of each
        model as `ms`), and `layers`, in the order of the computation. A layer has `name` (the structured name of its
        weight, or MNN's name of an operator without one), `type` and `purpose`, `shape` of the weight, `output_size`
        (height and width in pixels), `macs`, `ms_dense`, and `sparse`: `ratio`, `block` and `ms` for each sparse model.
        What is unknown is null.

    Raises:
        PipelineError: MNN failed.
    """
    timers = [LayerTimer(model.path) for model in models]
    for timer in timers:  # the first runs allocate and choose kernels
        timer.run()
        timer.operators.clear()
    start, rounds = time.perf_counter(), 0
    while rounds < _LEAST_ROUNDS or time.perf_counter() - start < seconds:
        for timer in timers:
            timer.run()
        rounds += 1
    times = [timer.milliseconds() for timer in timers]
    weights = _weights_by_output(prefix)
    layers = [
        _layer(name, operator, weights.get(name), set(pruned), models, times)
        for name, operator in timers[0].operators.items()
    ]
    return {
        "machine": this_machine().to_dict(),
        "runtime": "MNN",
        "threads": 1,
        "models": [
            {"kind": model.kind, "ratio": model.ratio, "block": list(model.block), "ms": sum(ms.values())}
            for model, ms in zip(models, times)
        ],
        "layers": layers,
    }


def _layer(
    name: str,
    operator: _Operator,
    weight: tuple[str, tuple[int, ...]] | None,
    pruned: set[str],
    models: Sequence[LayerModel],
    times: Sequence[Mapping[str, float]],
) -> dict[str, Any]:
    size = list(operator.shape[2:]) if len(operator.shape) == 4 else None
    structured, shape = weight or (name, None)
    return {
        "name": structured,
        "type": operator.type,
        "purpose": _purpose(operator.type, shape, structured in pruned),
        "shape": None if shape is None else list(shape),
        "output_size": size,
        "macs": None if shape is None or size is None else math.prod(shape) * math.prod(size),
        "ms_dense": times[0][name],
        "sparse": [
            {"ratio": model.ratio, "block": list(model.block), "ms": ms.get(name)}
            for model, ms in zip(models[1:], times[1:])
        ],
    }


def _purpose(type_: str, shape: tuple[int, ...] | None, is_pruned: bool) -> str:
    if is_pruned:
        return "pruned convolutions"
    if type_ == "ConvolutionDepthwise":
        return "depthwise convolutions"
    if type_ == "Convolution":
        is_1x1 = shape is not None and shape[2:] == (1, 1)
        return "other 1x1 convolutions" if is_1x1 or shape is None else "other convolutions"
    return _PURPOSES.get(type_, "other")


def _weights_by_output(prefix: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Maps the output variable of each convolution, by which MNN names it, to its weight's name and shape."""
    block, names = parse_program(prefix).blocks[0], load_structured_names(prefix)
    shapes = {var.name: tuple(tensor_details(var).dims) for var in block.vars if var.name in names}
    found = {}
    for op in block.ops:
        if op.type in ("conv2d", "depthwise_conv2d"):
            weight = slot_arguments(op.inputs)["Filter"][0]
            found[slot_arguments(op.outputs)["Output"][0]] = (names[weight], shapes[weight])
    return found
