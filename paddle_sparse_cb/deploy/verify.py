"""Verifies that the pruned weights are zero in every file made from the network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import PipelineError
from ..hooks import HookContext
from ..utils.layers import named_weights
from ..utils.tables import render_table
from ..utils.weight_files import load_arrays, load_inference
from .lite.nb import OptimizedModel, read_nb
from .program import Convolution, read_program

# The kernel of a layer that the file does not contain by itself: Paddle-Lite has merged it with its neighbor.
_MERGED = "merged"

_WEIGHTS_SCOPE = "pruned weights compared with the network bit for bit; other tensors not checked"
_NB_SCOPE = "zeros compared with the network, pruned weights with the dense file; other tensors and outputs not checked"


def check_arrays(context: HookContext, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Compares the pruned weights in a file with the network's, and counts their zeros.

    Args:
        context: the network, its plan and the target ratio.
        arrays: the content of the file, by structured name.

    Returns:
        A dict with `sparsity` (the fraction of zeros over all planned weights), `target`, `zeros` (the number of zeros
        of each planned weight in the file), `wrong` (names of planned weights that are missing or differ from the
        network's in any bit) and `ok`.
    """
    own = {name: weight for name, _, weight in named_weights(context.network)}
    planned = [layer for layer in context.sparsity.layers if layer.pruned]
    wrong = [
        layer.name
        for layer in planned
        if not np.array_equal(np.asarray(arrays.get(layer.name)), own[layer.name].numpy())
    ]
    zeros = {layer.name: _count_zeros(np.asarray(arrays[layer.name])) for layer in planned if layer.name in arrays}
    numel = sum(layer.numel for layer in planned)
    sparsity = sum(zeros.values()) / numel if numel else 0.0
    return {
        "sparsity": sparsity,
        "target": context.target_ratio,
        "zeros": zeros,
        "wrong": wrong,
        "ok": not wrong and sparsity >= context.target_ratio,
    }


def check_nb(context: HookContext, dense: Path, sparse: Path) -> dict[str, Any]:
    """Checks two `.nb` files of the same network, layer by layer, against each other and the network.

    In `sparse` every planned weight must have a sparse kernel and be zero wherever the network's is. Its values must be
    those in `dense`, bit for bit; they are not the network's, since Paddle-Lite folds batch norms into them. `sparse`
    must be the smaller file, unless the model is INT8.

    Args:
        context: the network, its plan, and its exported model as the artefact `inference`.
        dense: the `.nb` file with dense kernels.
        sparse: the `.nb` file with sparse kernels.

    Returns:
        A dict with `planned`, `sparse_convs` and `convs` (numbers of layers), `dense_bytes` and `sparse_bytes`,
        `layers` (`name`, `kernel` and `zeros` of each convolution in `sparse`; `kernel` is `sparse`, `dense` or
        `merged`), `dense_layers` (names of planned weights without a sparse kernel), `wrong` (names of planned weights
        that differ) and `ok`.

    Raises:
        InputError: a file is missing or damaged, or was made for an input of another size.
    """
    program = read_program(context.artefacts["inference"])
    dense_model, sparse_model = read_nb(dense), read_nb(sparse)
    own = {name: weight for name, _, weight in named_weights(context.network)}
    planned = {layer.name for layer in context.plan.pruned}
    layers, wrong = [], []
    for name, convolution in program.convolutions.items():
        _, dense_weight = _find_kernel(dense_model, convolution)
        kernel, weight = _find_kernel(sparse_model, convolution)
        layers.append({"name": name, "kernel": kernel, "zeros": None if weight is None else _count_zeros(weight)})
        if (
            name in planned
            and weight is not None
            and (weight[own[name].numpy() == 0].any() or not np.array_equal(weight, np.asarray(dense_weight)))
        ):
            wrong.append(name)
    run_sparse = {layer["name"] for layer in layers if layer["kernel"] == "sparse"}
    convolutions = [operator for operator in sparse_model.operators if operator.weight_variable is not None]
    dense_bytes, sparse_bytes = dense.stat().st_size, sparse.stat().st_size
    # With few zeros an INT8 file is larger sparse than dense (`INT8_THRESHOLD`), which `QuantizeInt8` warns about.
    smaller = sparse_bytes < dense_bytes or (sparse_bytes != dense_bytes and _is_int8(sparse_model))
    return {
        "planned": len(planned),
        "sparse_convs": sum(operator.sparse for operator in convolutions),
        "convs": len(convolutions),
        "dense_bytes": dense_bytes,
        "sparse_bytes": sparse_bytes,
        "layers": layers,
        "dense_layers": sorted(planned - run_sparse),
        "wrong": wrong,
        "ok": planned <= run_sparse and not wrong and smaller,
    }


def _find_kernel(model: OptimizedModel, convolution: Convolution) -> tuple[str, np.ndarray | None]:
    """Returns the kernel that a convolution has in a file and its weight there, None if it was merged."""
    operator = model.convolutions.get(convolution.variable)
    if operator is None:
        return _MERGED, None
    if not operator.sparse and model.parameters[operator.inputs["Filter"]].size != np.prod(convolution.shape):
        return _MERGED, None
    weight = model.decode_weight(operator, convolution.shape, convolution.pixels)
    return "sparse" if operator.sparse else "dense", weight


def _is_int8(model: OptimizedModel) -> bool:
    return any(
        model.parameters[operator.inputs["NonZeroWeights"]].dtype == np.int8
        for operator in model.operators
        if operator.sparse
    )


def _count_zeros(array: np.ndarray) -> int:
    return array.size - int(np.count_nonzero(array))


def verify(context: HookContext) -> None:
    """Post-train hook: verifies every file among the artefacts and adds the results to `context.checks`.

    The keys are `pdparams` and `pdiparams` (see `check_arrays`), `nb` and `nb_int8` (see `check_nb`). A mismatch is
    recorded, not raised, so that a report can still be written; `fail_on_mismatch` raises it.

    Raises:
        InputError: a file is missing or damaged.
    """
    print("verifying the zeros in the files ...", flush=True)
    artefacts = context.artefacts
    if "pdparams" in artefacts:
        context.checks["pdparams"] = check_arrays(context, load_arrays(artefacts["pdparams"]))
    if "inference" in artefacts:
        context.checks["pdiparams"] = check_arrays(context, load_inference(artefacts["inference"]))
    for name in ("nb", "nb_int8"):
        if {"inference", f"{name}_dense", f"{name}_sparse"} <= artefacts.keys():
            context.checks[name] = check_nb(context, artefacts[f"{name}_dense"], artefacts[f"{name}_sparse"])


def fail_on_mismatch(context: HookContext) -> None:
    """Post-train hook: fails if `verify` found a mismatch.

    Raises:
        PipelineError: a check failed. The message names the file and the layers, and says what was compared.
    """
    for name, check in context.checks.items():
        if not check["ok"]:
            raise PipelineError(f"{context.artefacts.get(f'{name}_sparse', name)}: {_summary(check)}")


def describe(check: Mapping[str, Any]) -> str:
    """Describes the result of a check in one line: the verdict, the figures, and what was and was not compared.

    Args:
        check: a value of `HookContext.checks`, or of `checks` in `report.json`.

    Example:
        >>> describe({"sparsity": 0.75, "target": 0.75, "wrong": [], "ok": True}).split(" (")[0]
        'ok: 75.0000% zeros in the pruned weights, target 75.0000%'
    """
    return f"{'ok' if check['ok'] else 'FAILED'}: {_summary(check)}"


def _summary(check: Mapping[str, Any]) -> str:
    differences = f"; weights differ in {_first(check['wrong'])}" if check["wrong"] else ""
    if "planned" not in check:
        return (
            f"{check['sparsity']:.4%} zeros in the pruned weights, target {check['target']:.4%}{differences} "
            f"({_WEIGHTS_SCOPE})"
        )
    dense = f"; dense: {_first(check['dense_layers'])}" if check["dense_layers"] else ""
    return (
        f"{check['planned'] - len(check['dense_layers'])} of {check['planned']} planned layers run sparse; "
        f"{check['sparse_convs']} of {check['convs']} convolutions; {check['sparse_bytes']:,} bytes, dense "
        f"{check['dense_bytes']:,}{dense}{differences} ({_NB_SCOPE})"
    )


def _first(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def layer_table(context: HookContext) -> str:
    """Formats the zeros of each weight in the network and in each verified file, and its kernel in each `.nb` file."""
    nb_layers = {
        name: {layer["name"]: layer for layer in check["layers"]}
        for name, check in context.checks.items()
        if "layers" in check
    }
    zeros = {name: check["zeros"] for name, check in context.checks.items() if "zeros" in check}
    rows = []
    for layer in context.sparsity.layers:
        if not layer.pruned and not any(layer.name in layers for layers in nb_layers.values()):
            continue
        row = [layer.name, "x".join(map(str, layer.shape)), layer.zeros]
        row += [counts.get(layer.name) for counts in zeros.values()]
        for layers in nb_layers.values():
            row += [layers.get(layer.name, {}).get(key) for key in ("zeros", "kernel")]
        row.append("pruned" if layer.pruned else layer.reason)
        rows.append(["-" if cell is None else f"{cell:,}" if isinstance(cell, int) else cell for cell in row])
    nb_headers = [header for name in nb_layers for header in (name, "kernel")]
    headers = ["zeros in", "shape", "network", *zeros, *nb_headers, ""]
    return render_table(headers, rows, f"llr{'r' * len(zeros)}{'rl' * len(nb_layers)}l")


def print_verification(context: HookContext) -> None:
    """Post-train hook: prints the zeros of each layer in each file, and one line per check (see `describe`)."""
    print(layer_table(context))
    for name, check in context.checks.items():
        print(f"{name}: {describe(check)}")
