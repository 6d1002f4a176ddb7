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
from .folding import fold_parameters
from .nb import Operator, OptimizedModel, read_nb

# The kernel of a layer that the file does not contain by itself: Paddle-Lite has merged it with its neighbor.
_MERGED = "merged"


def check_nb(context: HookContext, dense: Path, sparse: Path) -> dict[str, Any]:
    """Checks two `.nb` files of the same network, tensor by tensor.

    Both files must have operators of the same types, except for the sparse kernels, and the same tensors, bit for bit.
    Unless they are INT8, each tensor must be that of the exported model, with the batch norms folded in (see
    `fold_parameters`). In `sparse` every planned weight must have a sparse kernel and be zero wherever the network's
    is. `sparse` must be the smaller file, unless the model is INT8.

    Args:
        context: the network, its plan, and its exported model as the artefact `inference`.
        dense: the `.nb` file with dense kernels.
        sparse: the `.nb` file with sparse kernels.

    Returns:
        A dict with `planned`, `sparse_convs` and `convs` (numbers of layers), `dense_bytes` and `sparse_bytes`,
        `layers` (`name`, `kernel` and `zeros` of each convolution in `sparse`; `kernel` is `sparse`, `dense` or
        `merged`), `dense_layers` (names of planned weights without a sparse kernel), `tensors` (the number of tensors
        in `dense`), `compared` (how many of them were compared with the exported model), `is_int8`, `wrong` (names of
        tensors that differ between the files, from the exported model or from the network's zeros), `same_operators`
        and `ok`.

    Raises:
        InputError: a file is missing or damaged, or was made for an input of another size.
    """
    program = read_program(context.artefacts["inference"])
    dense_model, sparse_model = read_nb(dense), read_nb(sparse)
    is_int8 = _is_int8(sparse_model)
    names = {convolution.variable: name for name, convolution in program.convolutions.items()}
    layers, wrong = _compare_convolutions(context, program, dense_model, sparse_model)
    others = _differing_parameters(dense_model, sparse_model)
    compared = 0
    if not is_int8:
        unlike, compared = _compare_with_exported(dense_model, context.artefacts["inference"])
        others |= unlike
    wrong = list(dict.fromkeys([*wrong, *sorted(names.get(variable, variable) for variable in others)]))
    planned = {layer.name for layer in context.plan.pruned}
    run_sparse = {layer["name"] for layer in layers if layer["kernel"] == "sparse"}
    convolutions = [operator for operator in sparse_model.operators if operator.weight_variable is not None]
    dense_bytes, sparse_bytes = dense.stat().st_size, sparse.stat().st_size
    same_operators = _operator_counts(dense_model.operators) == _operator_counts(sparse_model.operators)
    # With few zeros an INT8 file is larger sparse than dense (`INT8_THRESHOLD`), which `QuantizeInt8` warns about.
    is_smaller = sparse_bytes < dense_bytes or (sparse_bytes != dense_bytes and is_int8)
    return {
        "planned": len(planned),
        "sparse_convs": sum(operator.sparse for operator in convolutions),
        "convs": len(convolutions),
        "dense_bytes": dense_bytes,
        "sparse_bytes": sparse_bytes,
        "layers": layers,
        "dense_layers": sorted(planned - run_sparse),
        "tensors": len(dense_model.parameters),
        "compared": compared,
        "is_int8": is_int8,
        "wrong": wrong,
        "same_operators": same_operators,
        "ok": planned <= run_sparse and not wrong and is_smaller and same_operators,
    }


def _compare_convolutions(
    context: HookContext, program: Program, dense_model: OptimizedModel, sparse_model: OptimizedModel
) -> tuple[list[dict[str, Any]], list[str]]:
    """Returns a row per convolution, and the names of those whose weights differ or lack a zero of the network."""
    own = {name: weight for name, _, weight in named_weights(context.network)}
    planned = {layer.name for layer in context.plan.pruned}
    layers, wrong = [], []
    for name, convolution in program.convolutions.items():
        _, dense_weight = _find_kernel(dense_model, convolution)
        kernel, weight = _find_kernel(sparse_model, convolution)
        zeros = None if weight is None else weight.size - int(np.count_nonzero(weight))
        layers.append({"name": name, "kernel": kernel, "zeros": zeros})
        if weight is None:
            continue
        lacks_zeros = name in planned and weight[own[name].numpy() == 0].any()
        if lacks_zeros or not np.array_equal(weight, np.asarray(dense_weight)):
            wrong.append(name)
    return layers, wrong


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


def _is_int8(model: OptimizedModel) -> bool:
    return any(
        model.parameters[operator.inputs["NonZeroWeights"]].dtype == np.int8
        for operator in model.operators
        if operator.sparse
    )


def _operator_counts(operators: Iterable[Operator]) -> Counter[str]:
    """The number of operators of each type, whatever kernel a convolution has.

    Their order differs between the files, and around an INT8 kernel the number of conversions.
    """
    types = ("conv2d" if operator.sparse else operator.type for operator in operators)
    return Counter(one for one in types if one != "calib")
