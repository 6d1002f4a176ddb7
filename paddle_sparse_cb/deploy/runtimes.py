"""Runs exported models on this machine: a runtime for each suffix of a model file.

A new runtime is a class like `PaddleModel`, or an engine of `bench.engines`, and an entry in `RUNTIMES`.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..errors import InputError, PipelineError, did_you_mean
from ..utils.weight_files import load_parameters, parse_program
from .bench.engines import MNN, ONNXRUNTIME, Engine, load
from .bench.probe import check_runnable
from .bench.run import Candidate
from .program import input_shapes, slot_arguments

# Operators of PicoDet and similar networks. Others are refused, because some of Paddle's run Python code, write files
# or wait for another process.
# fmt: off
_ALLOWED = frozenset({
    "assign", "assign_value", "batch_norm", "bilinear_interp_v2", "cast", "clip", "concat", "conv2d",
    "conv2d_transpose", "depthwise_conv2d", "dropout", "elementwise_add", "elementwise_div", "elementwise_max",
    "elementwise_min", "elementwise_mod", "elementwise_mul", "elementwise_pow", "elementwise_sub", "equal", "exp",
    "expand_v2", "feed", "fetch", "fill_constant", "flatten_contiguous_range", "floor", "gather", "gather_nd",
    "gelu", "greater_than", "hard_sigmoid", "hard_swish", "layer_norm", "leaky_relu", "less_than", "log",
    "matmul_v2", "meshgrid", "mish", "multiclass_nms3", "nearest_interp_v2", "pool2d", "prelu", "range",
    "reduce_max", "reduce_mean", "reduce_min", "reduce_sum", "relu", "relu6", "reshape2", "scale", "shape",
    "sigmoid", "silu", "slice", "softmax", "split", "sqrt", "square", "squeeze2", "stack", "swish", "tanh", "tile",
    "top_k_v2", "transpose2", "unsqueeze2", "where",
})
# fmt: on


class Runnable(Protocol):
    """A model that is ready to run.

    Attributes:
        inputs: the shape of each input.
    """

    inputs: dict[str, tuple[int, ...]]

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Computes the outputs by name, for an array for each input."""


class PaddleModel:
    """An exported program, run by Paddle Inference on the CPU.

    Args:
        path: `model.pdmodel`; `model.pdiparams` is beside it.
        threads: of Paddle's mathematical library.

    Attributes:
        inputs: the shape of each input.

    Raises:
        InputError: a file is missing or damaged, or the program has an operator that no detector needs.
    """

    def __init__(self, path: Path, threads: int = 1) -> None:
        from paddle import inference

        prefix = path.with_suffix("")
        program = parse_program(prefix)
        _check_program(path, program)
        load_parameters(prefix)  # Paddle would end the process at some kinds of damage
        config = inference.Config(str(path), f"{prefix}.pdiparams")
        config.disable_gpu()
        config.disable_glog_info()
        config.set_cpu_math_library_num_threads(threads)
        self._path = path
        with _one_line_errors(path):
            self.inputs = input_shapes(program.blocks[0])
            self._predictor = inference.create_predictor(config)

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs the program.

        Args:
            inputs: an array for each input.

        Returns:
            The outputs by name.

        Raises:
            InputError: Paddle cannot run the program with these inputs.
        """
        with _one_line_errors(self._path):
            for name in self.inputs:
                self._predictor.get_input_handle(name).copy_from_cpu(inputs[name])
            self._predictor.run()
            names = self._predictor.get_output_names()
            return {name: self._predictor.get_output_handle(name).copy_to_cpu() for name in names}


def _check_program(path: Path, program: Any) -> None:
    """Refuses a program that would run more than a network's computation, or end the process.

    Paddle's optimizations (2.6.2) do not survive an operator that reads what no operator has written, or a variable
    that is not declared.
    """
    block = program.blocks[0]
    if len(program.blocks) > 1:
        raise InputError(f"{path}: a program with branches or loops is not run: no detector needs them")
    declared = {var.name for var in block.vars}
    written = {var.name for var in block.vars if var.persistable}
    for op in block.ops:
        if op.type not in _ALLOWED:
            raise InputError(f"{path}: the operator {op.type} is not run: no detector needs it")
        _check_arguments(path, op.type, op.inputs, written)
        _check_arguments(path, op.type, op.outputs, declared)
        written.update(name for names in slot_arguments(op.outputs).values() for name in names)


def _check_arguments(path: Path, op: str, slots: Any, known: set[str]) -> None:
    for names in slot_arguments(slots).values():
        for name in names:
            if name not in known:
                raise InputError(f"{path}: damaged: {op} names {name!r}, which is not declared or not yet computed")


@contextlib.contextmanager
def _one_line_errors(path: Path) -> Iterator[None]:
    """Turns what Paddle raises, with its stack, into an InputError of one line."""
    try:
        yield
    except (ArithmeticError, LookupError, MemoryError, OSError, RuntimeError, TypeError, ValueError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = next((line for line in lines if "Error:" in line), lines[-1] if lines else type(error).__name__)
        raise InputError(f"{path}: Paddle cannot run this model: {reason[:300]}") from None


def _open_in_engine(engine: Engine, path: Path, threads: int) -> Runnable:
    """Opens a file after a trial in another process: these runtimes crash on damaged files."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if engine.version is None:
        raise PipelineError(f"{path}: {engine.name} is not installed: pip install 'paddle_sparse_cb[{engine.extra}]'")
    check_runnable([Candidate(engine, path, "dense", None)])
    return load(engine, path, threads)


# By the suffix of the file; a model of several files is named by the one with the program.
RUNTIMES: dict[str, Callable[[Path, int], Runnable]] = {
    ".pdmodel": PaddleModel,
    ".onnx": functools.partial(_open_in_engine, ONNXRUNTIME),
    ".mnn": functools.partial(_open_in_engine, MNN),
}


def open_model(path: Path, threads: int = 1) -> Runnable:
    """Opens a model file with the runtime of its suffix.

    Args:
        path: the file.
        threads: threads of the runtime.

    Raises:
        InputError: no runtime of this machine runs such a file, or it is missing or damaged.
    """
    if path.suffix == ".nb":
        raise InputError(f"{path}: a .nb file runs on ARM devices only; the exported model, inference/, runs here")
    if path.suffix not in RUNTIMES:
        raise InputError(f"{path}: no runtime for a model file {path.suffix!r}; {did_you_mean(path.suffix, RUNTIMES)}")
    return RUNTIMES[path.suffix](path, threads)
