"""Checks two `.nb` files of one network against each other and against the exported model that they were made from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ...hooks import HookContext
from ...utils.layers import named_weights
from ..program import Convolution, Program, read_program
from .constraints import runs_paired
from .folding import fold_parameters
from .nb import Operator, OptimizedModel, read_nb

# The kernel of a layer that the file does not contain by itself: Paddle-Lite has merged it with its neighbor.
_MERGED = "merged"
_MAX_FP16 = float(np.finfo(np.float16).max)


def check_nb(context: HookContext, dense: Path, sparse: Path, precision: str = "FP32") -> dict[str, Any]:
    """Checks two `.nb` files of the same network, tensor by tensor.

    Both files must have operators of the same types, except for the sparse kernels, and the same tensors, bit for bit.
    Unless they are INT8, each tensor must be that of the exported model, with the batch norms folded in (see
    `fold_parameters`): FP16 files hold FP32 tensors too, which Paddle-Lite rounds when it loads them. In `sparse` every
    planned weight must have a sparse kernel and be zero wherever the network's is, and the kernel for two output
    channels at a time if the zeros allow it. `sparse` must be the smaller file, unless the model is INT8.

    Args:
        context: the network, its plan, and its exported model as the artefact `inference`.
        dense: the `.nb` file with dense kernels.
        sparse: the `.nb` file with sparse kernels.
        precision: what the convolutions must compute in: `FP32`, `FP16` or `INT8`.

    Returns:
        A dict with `planned`, `sparse_convs`, `paired_convs` (those of two output channels at a time) and `convs`
        (numbers of layers), `dense_bytes` and `sparse_bytes`, `layers` (`name`, `kernel`, `block` and `zeros` of each
        convolution in `sparse`; `kernel` is `sparse`, `dense` or `merged`; `block` has the output and input channels
        that a sparse kernel processes at a time), `dense_layers` (names of planned weights without a sparse kernel),
        `tensors` (the number of tensors in `dense`), `compared` (how many of them were compared with the exported
        model), `precision`, `wrong` (names of tensors that differ between the files, from the exported model or from
        the network's zeros), `kernel_problems` (unsuitable kernels and tensors, one line each), `same_operators` and
        `ok`.

    Raises:
        InputError: a file is missing or damaged, or was made for an input of another size.
    """
    program = read_program(context.artefacts["inference"])
    dense_model, sparse_model = read_nb(dense), read_nb(sparse)
    is_int8 = precision == "INT8"
    names = {convolution.variable: name for name, convolution in program.convolutions.items()}
    layers, wrong, kernel_problems = _compare_convolutions(context, program, dense_model, sparse_model)
    others = _differing_parameters(dense_model, sparse_model)
    compared = 0
    if not is_int8:
        unlike, compared = _compare_with_exported(dense_model, context.artefacts["inference"])
        others |= unlike
    wrong = list(dict.fromkeys([*wrong, *sorted(names.get(variable, variable) for variable in others)]))
    planned = {layer.name for layer in context.plan.pruned}
    run_sparse = {layer["name"] for layer in layers if layer["kernel"] == "sparse"}
    for model in (dense_model, sparse_model):
        kernel_problems += _unsuitable_kernels(model, precision, names)
    if precision == "FP16":
        kernel_problems += _beyond_fp16(dense_model, names)
    convolutions = [operator for operator in sparse_model.operators if operator.weight_variable is not None]
    dense_bytes, sparse_bytes = dense.stat().st_size, sparse.stat().st_size
    same_operators = _operator_counts(dense_model.operators) == _operator_counts(sparse_model.operators)
    # With few zeros an INT8 file is larger sparse than dense (`INT8_THRESHOLD`), which `QuantizeInt8` warns about.
    is_smaller = sparse_bytes < dense_bytes or (sparse_bytes != dense_bytes and is_int8)
    return {
        "planned": len(planned),
        "sparse_convs": sum(operator.sparse for operator in convolutions),
        "paired_convs": sum(operator.block == (2, 1) for operator in convolutions),
        "convs": len(convolutions),
        "dense_bytes": dense_bytes,
        "sparse_bytes": sparse_bytes,
        "layers": layers,
        "dense_layers": sorted(planned - run_sparse),
        "tensors": len(dense_model.parameters),
        "compared": compared,
        "precision": precision,
        "wrong": wrong,
        "kernel_problems": kernel_problems,
        "same_operators": same_operators,
        "ok": planned <= run_sparse and not wrong and not kernel_problems and is_smaller and same_operators,
    }


def _compare_convolutions(
    context: HookContext, program: Program, dense_model: OptimizedModel, sparse_model: OptimizedModel
) -> tuple[list[dict[str, Any]], list[str], list[str]]:
    """Compares the weights of all convolutions.

    Returns:
        A row per convolution, the names of those whose weights differ or lack a zero of the network, and a line for
        each that has its zeros in pairs of output channels and a kernel for single ones.
    """
    own = {name: weight for name, _, weight in named_weights(context.network)}
    planned = {layer.name for layer in context.plan.pruned}
    layers, wrong, unpaired = [], [], []
    for name, convolution in program.convolutions.items():
        _, dense_weight = _find_kernel(dense_model, convolution)
        kernel, weight = _find_kernel(sparse_model, convolution)
        block = sparse_model.convolutions[convolution.variable].block if kernel == "sparse" else None
        zeros = None if weight is None else weight.size - int(np.count_nonzero(weight))
        layers.append({"name": name, "kernel": kernel, "block": block and list(block), "zeros": zeros})
        if weight is None:
            continue
        lacks_zeros = name in planned and weight[own[name].numpy() == 0].any()
        if lacks_zeros or not np.array_equal(weight, np.asarray(dense_weight)):
            wrong.append(name)
        if block == (1, 1) and runs_paired(weight):
            unpaired.append(f"{name} has its zeros in pairs of output channels and a kernel for single ones")
    return layers, wrong, unpaired


def _find_kernel(model: OptimizedModel, convolution: Convolution) -> tuple[str, np.ndarray | None]:
    """Returns the kernel that a convolution has in a file and its weight there, None if it was merged."""
    operator = model.convolutions.get(convolution.variable)
    if operator is None:
        return _MERGED, None
    if not operator.sparse and model.parameters[operator.inputs["Filter"]].size != np.prod(convolution.shape):
        return _MERGED, None
    weight = model.decode_weight(operator, convolution.shape, convolution.pixels)
    return "sparse" if operator.sparse else "dense", weight


def _differing_parameters(dense: OptimizedModel, sparse: OptimizedModel) -> set[str]:
    """Returns the variables that differ between two files, are in one of them only, or are not finite.

    The weights with a sparse kernel are compared elsewhere; their parts have names of their own.
    """
    sparse_weights = {operator.weight_variable for operator in sparse.operators if operator.sparse}
    parts = {
        operator.inputs[slot]
        for operator in sparse.operators
        if operator.sparse
        for slot in ("NonZeroWeights", "OcNonZeros", "Diffs")
    }
    differing = {
        variable
        for variable, array in dense.parameters.items()
        if variable not in sparse_weights and not _same_bits(array, sparse.parameters.get(variable))
    }
    added = sparse.parameters.keys() - dense.parameters.keys() - parts
    not_finite = {
        variable
        for model in (dense, sparse)
        for variable, array in model.parameters.items()
        if array.dtype.kind == "f" and not np.isfinite(array).all()
    }
    return differing | added | not_finite


def _same_bits(first: np.ndarray, second: np.ndarray | None) -> bool:
    return second is not None and (first.dtype, first.shape, first.tobytes()) == (
        second.dtype,
        second.shape,
        second.tobytes(),
    )


def _compare_with_exported(model: OptimizedModel, prefix: Path) -> tuple[set[str], int]:
    """Returns the variables whose values are not those of the exported model, and how many were compared.

    Not compared are merged convolutions and constants that the optimizer computed.
    """
    expected = fold_parameters(prefix)
    compared = {
        variable: array
        for variable, array in model.parameters.items()
        if variable in expected and array.size == expected[variable].value.size
    }
    return {name for name, array in compared.items() if not expected[name].matches(array)}, len(compared)


def _unsuitable_kernels(model: OptimizedModel, precision: str, names: dict[str, str]) -> list[str]:
    """Returns a line for each convolution with a kernel of another precision. An INT8 file may have FP32 kernels too.

    Args:
        model: the content of a file.
        precision: see `check_nb`.
        names: the structured names of weights by variable.
    """
    found = {operator.precision for operator in model.convolutions.values()}
    allowed = {"INT8", "FP32"} if precision == "INT8" and "INT8" in found else {precision}
    return [
        f"{model.path.name}: {names.get(variable, variable)} has the kernel {operator.kernel}, expected {precision}"
        for variable, operator in model.convolutions.items()
        if operator.precision not in allowed
    ]


def _beyond_fp16(model: OptimizedModel, names: dict[str, str]) -> list[str]:
    """Returns a line for each parameter that becomes infinite when Paddle-Lite rounds it to FP16."""
    return [
        f"{model.path.name}: {names.get(variable, variable)} has a value beyond {_MAX_FP16:,.0f}, the range of FP16"
        for variable, array in model.parameters.items()
        if array.dtype.kind == "f" and np.abs(array).max(initial=0) > _MAX_FP16
    ]


def _operator_counts(operators: Iterable[Operator]) -> Counter[str]:
    """The number of operators of each type, whatever kernel a convolution has.

    Their order differs between the files, and around an INT8 kernel the number of conversions.
    """
    types = ("conv2d" if operator.sparse else operator.type for operator in operators)
    return Counter(one for one in types if one != "calib")
