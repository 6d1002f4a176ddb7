"""Checks what Paddle-Lite's sparse kernels need, before training and before the optimizer runs.

The optimizer reports hardly any of these cases. docs/deploy.md lists them with their effects.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ...errors import InputError
from ...pruning.plan import PrunePlan
from ...utils.weight_files import load_inference
from ..program import Convolution, Program, read_program

# The fraction of zeros from which Paddle-Lite chooses a sparse kernel for a 1x1 convolution: its default.
THRESHOLD = 0.6

# The fraction of zeros from which an INT8 layer is smaller sparse than dense: a non-zero takes five bytes, and every
# weight of a dense layer one.
INT8_THRESHOLD = 0.8

# Activations whose scale Paddle-Lite applies twice after a sparse INT8 convolution (measured relative errors: 2 to 8).
_WRONG_IN_INT8 = ("hard_swish", "leaky_relu")

# Options of `paddle_lite_opt` that exclude a sparse model: the one value that is compatible, and why others are not.
_SPARSE_VALUES = {
    "quant_model": (
        "false",
        "the weights of sparse convolutions would stay FP32; export.int8 (QuantizeInt8) quantizes them",
    ),
    "valid_targets": ("arm", "sparse kernels are chosen for the single target 'arm' only"),
}
_FLAGS = ("enable_fp16", "quant_model")  # the optimizer takes anything but `true` for false
_OPTIONS = {*_SPARSE_VALUES, *_FLAGS, "quant_type"}
_RESERVED_OPTIONS = {
    "model_dir",
    "model_file",
    "param_file",
    "optimize_out",
    "optimize_out_type",
    "sparse_model",
    "sparse_threshold",
}


def check_options(options: Mapping[str, str], sparse: bool) -> None:
    """Checks options of `paddle_lite_opt`.

    Args:
        options: `enable_fp16`, `quant_model`, `quant_type` and `valid_targets` with their values as on the command
            line, such as `{"enable_fp16": "true"}`.
        sparse: whether the options are for a model with sparse kernels.

    Raises:
        InputError: an option is unknown, set by `optimize` itself, has a value that the optimizer would ignore, or is
            incompatible with a sparse model.
    """
    for name, value in options.items():
        if name in _RESERVED_OPTIONS:
            raise InputError(f"Paddle-Lite's option {name} is set by this package and cannot be changed")
        if name not in _OPTIONS:
            raise InputError(f"Paddle-Lite's option {name} is unknown; known: {', '.join(sorted(_OPTIONS))}")
        if not re.fullmatch(r"[\w,]+", value):
            raise InputError(f"Paddle-Lite's option {name} must be a word or comma-separated words, got {value!r}")
        if name in _FLAGS and value not in ("true", "false"):
            raise InputError(f"Paddle-Lite's option {name} must be true or false, got {value!r}")
        compatible, reason = _SPARSE_VALUES.get(name, (value, ""))
        if sparse and value != compatible:
            raise InputError(f"Paddle-Lite's option {name}={value} is incompatible with a sparse model: {reason}")
    targets = options.get("valid_targets", "arm")
    if options.get("enable_fp16") == "true" and "arm" not in targets.split(","):
        raise InputError(f"Paddle-Lite's option enable_fp16=true needs 'arm' in valid_targets, got {targets!r}")


def runs_paired(weight: np.ndarray) -> bool:
    """Returns whether a sparse FP32 or FP16 kernel processes two output channels at a time.

    Paddle-Lite pairs the rows 0 and 1, 2 and 3, ... and chooses that kernel if at least 90% of what it would process is
    not zero (lite/core/optimizer/mir/sparse_conv_detect_pass.cc, ComputeSemiSparseZeros).

    Args:
        weight: the weight of a 1x1 convolution, of shape [output channels, input channels, 1, 1].
    """
    nonzero = weight.reshape(len(weight), -1)[: len(weight) // 2 * 2] != 0
    either = nonzero[::2] | nonzero[1::2]
    return bool(np.count_nonzero(nonzero) * 5 >= np.count_nonzero(either) * 9)


def find_dense_layers(plan: PrunePlan, min_sparsity: Mapping[str, float]) -> dict[str, str]:
    """Finds the planned layers that Paddle-Lite would run dense.

    Args:
        plan: which weights are pruned.
        min_sparsity: the least fraction of zeros of each planned weight at the end of training, by structured name
            (see `pruning.min_sparsity`).

    Returns:
        The reason for each such layer, by structured name.
    """
    too_few = {
        name: f"it may end with as few as {ratio:.2%} zeros, and runs sparse from {THRESHOLD:.0%}"
        for name, ratio in min_sparsity.items()
        if ratio < THRESHOLD
    }
    return {
        layer.name: layer.lite_dense_reason or too_few[layer.name]
        for layer in plan.pruned
        if layer.lite_dense_reason or layer.name in too_few
    }


def check_runs_sparse(plan: PrunePlan, min_sparsity: Mapping[str, float]) -> None:
    """Checks before training that Paddle-Lite will run every planned layer sparse.

    Args:
        plan: see `find_dense_layers`.
        min_sparsity: see `find_dense_layers`.

    Raises:
        InputError: a layer would run dense; the message names the first such layer and the reason.
    """
    dense = find_dense_layers(plan, min_sparsity)
    if dense:
        name, reason = next(iter(dense.items()))
        more = f" (and {len(dense) - 1} more of {len(plan.pruned)} planned layers)" if len(dense) > 1 else ""
        raise InputError(
            f"Paddle-Lite would keep {name} dense: {reason}{more}; skip it, or change its ratio, scope or block"
        )


def check_sparse(prefix: Path) -> None:
    """Checks that the optimizer can make an exported model sparse with correct results.

    Args:
        prefix: the exported model's path without `.pdmodel`.

    Raises:
        InputError: an input has a dynamic dimension or a batch size other than 1; a layer with enough zeros for a
            sparse kernel is all zeros or called more than once; the model is INT8 and has an activation that is
            computed wrongly; or a file is missing or damaged.
    """
    program, arrays = read_program(prefix), load_inference(prefix)
    for name, shape in program.inputs.items():
        check_input_shape(f"{prefix}.pdmodel: input {name!r}", shape)
    for convolution in program.convolutions.values():
        weight = arrays[convolution.name]
        if convolution.may_be_sparse and _zero_fraction(weight) >= THRESHOLD:
            _check_convolution(prefix, convolution, weight)
    if any("quantize" in op_type for op_type in program.op_counts):
        check_int8(f"{prefix}.pdmodel", program)


def check_input_shape(where: str, shape: Sequence[int | None]) -> None:
    """Checks that every dimension of an input is fixed and the batch size is 1.

    Args:
        where: the input, for the error message.
        shape: the shape of the input; None, -1 and 0 mark a dynamic dimension.

    Raises:
        InputError: a dimension is dynamic, or the batch size is not 1.
    """
    if any(size is None or size < 1 for size in shape) or (shape and shape[0] != 1):
        raise InputError(
            f"{where} has shape {list(shape)}; every dimension must be fixed and the batch size 1, or "
            "Paddle-Lite computes wrong results"
        )


def check_int8(where: str, program: Program) -> None:
    """Checks that a network can be both INT8 and sparse.

    Args:
        where: the model, for the error message.
        program: the model's program, quantized or not.

    Raises:
        InputError: the network has an activation that Paddle-Lite scales twice.
    """
    wrong = [op_type for op_type in _WRONG_IN_INT8 if program.op_counts[op_type]]
    if wrong:
        raise InputError(
            f"{where}: a network with {' and '.join(wrong)} cannot be INT8 and sparse: Paddle-Lite "
            "applies the activation's scale twice, with wrong results; use FP32, or ReLU or ReLU6"
        )


def _check_convolution(prefix: Path, convolution: Convolution, weight: np.ndarray) -> None:
    if convolution.calls > 1:
        raise InputError(
            f"{prefix}.pdmodel: {convolution.name} is called {convolution.calls} times and is "
            f"{_zero_fraction(weight):.0%} zeros: Paddle-Lite's optimizer crashes on a shared sparse "
            "convolution; exclude it from pruning (skip)"
        )
    if not weight.any():
        raise InputError(
            f"{prefix}.pdmodel: {convolution.name} is all zeros: Paddle-Lite cannot load a sparse "
            "convolution without weights; prune it less or exclude it from pruning (skip)"
        )


def _zero_fraction(weight: np.ndarray) -> float:
    return (weight.size - np.count_nonzero(weight)) / weight.size
