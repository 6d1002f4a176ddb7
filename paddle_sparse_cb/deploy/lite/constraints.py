"""What Paddle-Lite's sparse path would crash on or compute wrongly, found before its optimizer runs.

Its optimizer says nothing in most of these cases; docs/deploy.md lists them with what happens.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ...errors import InputError
from ...utils.weight_files import load_inference
from ..program import Convolution, Program, read_program

# Zeros over weights at which Paddle-Lite makes a 1x1 convolution sparse: its own default.
THRESHOLD = 0.6

# From here on an INT8 layer takes less room sparse than dense: a non-zero costs five bytes, a weight one.
INT8_THRESHOLD = 0.8

# In INT8 their scale is applied twice behind a sparse convolution (measured: relative errors of 2 to 8).
_WRONG_IN_INT8 = ("hard_swish", "leaky_relu")

_WHY_NOT = {
    "enable_fp16": "its FP16 sparse kernels are not known to compute the right thing; sparse models are FP32 or INT8",
    "quant_model": "the weights of sparse convolutions would stay FP32; export.int8 (QuantizeInt8) quantises them",
    "valid_targets": "it makes nothing sparse for any target but 'arm' alone",
}
_HARMLESS = {"enable_fp16": "false", "quant_model": "false", "valid_targets": "arm"}
_OURS = {"model_dir", "model_file", "param_file", "optimize_out", "optimize_out_type", "sparse_model",
         "sparse_threshold"}


def check_options(options: Mapping[str, str], sparse: bool) -> None:
    """Checks options of `paddle_lite_opt` against what it does with a sparse model.

    Args:
        options: `enable_fp16`, `quant_model`, `quant_type` or `valid_targets` to the values as its command line has
            them, such as `{"enable_fp16": "true"}`.
        sparse: whether sparse kernels are wanted.

    Raises:
        InputError: an unknown option, or one that does not go with a sparse model.
    """
    known = {*_WHY_NOT, "quant_type"}
    for name, value in options.items():
        if name not in known:
            why = "is set by this step" if name in _OURS else f"is unknown; known: {', '.join(sorted(known))}"
            raise InputError(f"Paddle-Lite's option {name} {why}")
        if not re.fullmatch(r"[\w,]+", value):
            raise InputError(f"Paddle-Lite's option {name} is a word or words with commas between, got {value!r}")
        if sparse and name in _WHY_NOT and value != _HARMLESS[name]:
            raise InputError(f"Paddle-Lite's option {name}={value} does not go with a sparse model: {_WHY_NOT[name]}")


def check_sparse(prefix: Path) -> None:
    """Checks an exported model before its convolutions are made sparse.

    Args:
        prefix: the exported model's path without `.pdmodel`.

    Raises:
        InputError: its input is not fixed or not one image, a layer that would become sparse is all zeros or used
            twice, or it is an INT8 model with an activation that comes out wrong.
    """
    program, arrays = read_program(prefix), load_inference(prefix)
    for name, shape in program.inputs.items():
        check_input(f"{prefix}.pdmodel: input {name!r}", shape)
    for convolution in program.convolutions.values():
        weight = arrays[convolution.name]
        if convolution.may_be_sparse and _zeros(weight) >= THRESHOLD:
            _check_convolution(prefix, convolution, weight)
    if any("quantize" in kind for kind in program.kinds):
        check_int8(f"{prefix}.pdmodel", program)


def check_input(what: str, shape: tuple[int, ...] | list[int | None]) -> None:
    """Checks the shape of an input: all sizes fixed, and one image.

    Raises:
        InputError: it is not so.
    """
    if any(size is None or size < 1 for size in shape) or (shape and shape[0] != 1):
        raise InputError(f"{what} has shape {list(shape)}; a sparse model needs every size fixed and batch 1, or "
                         "Paddle-Lite computes wrong results")


def check_int8(what: str, program: Program) -> None:
    """Checks that a network may be INT8 and sparse.

    Raises:
        InputError: it has an activation that Paddle-Lite scales twice.
    """
    wrong = [kind for kind in _WRONG_IN_INT8 if program.kinds[kind]]
    if wrong:
        raise InputError(f"{what}: no sparse INT8 model of a network with {' and '.join(wrong)}: Paddle-Lite applies "
                         "the activation's scale twice there, with wrong results; use FP32, or ReLU or ReLU6")


def _check_convolution(prefix: Path, convolution: Convolution, weight: np.ndarray) -> None:
    if convolution.calls > 1:
        raise InputError(f"{prefix}.pdmodel: {convolution.name} is called {convolution.calls} times and "
                         f"{_zeros(weight):.0%} zero: Paddle-Lite's optimizer crashes on a shared sparse convolution; "
                         "leave it out of the pruning (skip)")
    if not weight.any():
        raise InputError(f"{prefix}.pdmodel: {convolution.name} is all zeros: Paddle-Lite cannot load a sparse "
                         "convolution without weights; prune it less or leave it out (skip)")


def _zeros(weight: np.ndarray) -> float:
    return (weight.size - np.count_nonzero(weight)) / weight.size
