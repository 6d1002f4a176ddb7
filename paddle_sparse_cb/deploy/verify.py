"""The promise, checked: the zeros of the network are in every file that was made of it."""

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
from .lite.nb import Optimized, read_nb
from .program import Convolution, read_program

# The kernel of a layer that is in no file by itself: Paddle-Lite has multiplied it with its neighbour.
_MERGED = "merged"


def check_arrays(context: HookContext, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Counts zeros again in stored weights, and compares these with the network's.

    Args:
        context: the network that was stored, and the ratio that it was pruned to.
        arrays: structured name to array.

    Returns:
        `sparsity` (zeros over the weights to prune), `target`, `zeros` (of each weight to prune that is there),
        `wrong` (names of weights to prune that are missing or are not the network's) and `ok`.
    """
    own = {name: weight for name, _, weight in named_weights(context.network)}
    planned = [layer for layer in context.sparsity.layers if layer.pruned]
    wrong = [layer.name for layer in planned
             if not np.array_equal(np.asarray(arrays.get(layer.name)), own[layer.name].numpy())]
    zeros = {layer.name: _zeros(np.asarray(arrays[layer.name])) for layer in planned if layer.name in arrays}
    numel = sum(layer.numel for layer in planned)
    sparsity = sum(zeros.values()) / numel if numel else 0.0
    return {"sparsity": sparsity, "target": context.target_ratio, "zeros": zeros, "wrong": wrong,
            "ok": not wrong and sparsity >= context.target_ratio}


def check_nb(context: HookContext, dense: Path, sparse: Path) -> dict[str, Any]:
    """Checks two optimized models of the same network, layer by layer, by what is stored in them.

    Every weight to prune has a sparse kernel in the one file, and there its zeros are where the network has them. The
    other file has the same weights, with dense kernels.

    Args:
        context: the network, and its exported model as the artefact `inference`.
        dense: the `.nb` with dense kernels.
        sparse: the `.nb` with sparse ones.

    Returns:
        `planned`, `sparse_convs` and `convs` (numbers of layers), `dense_bytes` and `sparse_bytes`, `layers` (for each
        convolution `name`, `kernel` and `zeros`, of as many as in the network's report), `dense_layers` (names of
        weights to prune without a sparse kernel), `wrong` (names of those with other zeros than the network or other
        weights than the dense file) and `ok`.
    """
    program = read_program(context.artefacts["inference"])
    files = read_nb(dense), read_nb(sparse)
    own = {name: weight for name, _, weight in named_weights(context.network)}
    planned = {layer.name for layer in context.plan.pruned}
    layers, wrong = [], []
    for name, convolution in program.convolutions.items():
        stored = [_stored(file, convolution) for file in files]
        kernel, weight = stored[1]
        layers.append({"name": name, "kernel": kernel, "zeros": None if weight is None else _zeros(weight)})
        if name in planned and weight is not None and (
                weight[own[name].numpy() == 0].any() or not np.array_equal(weight, np.asarray(stored[0][1]))):
            wrong.append(name)
    run_sparse = {layer["name"] for layer in layers if layer["kernel"] == "sparse"}
    convolutions = [operator for operator in files[1].operators if operator.weight is not None]
    sizes = dense.stat().st_size, sparse.stat().st_size
    # An INT8 file may be larger with sparse kernels (`rules.INT8_THRESHOLD`), and the user has been warned.
    smaller = sizes[1] < sizes[0] or (sizes[1] != sizes[0] and _is_int8(files[1]))
    return {"planned": len(planned), "sparse_convs": sum(operator.sparse for operator in convolutions),
            "convs": len(convolutions), "dense_bytes": sizes[0], "sparse_bytes": sizes[1], "layers": layers,
            "dense_layers": sorted(planned - run_sparse), "wrong": wrong,
            "ok": planned <= run_sparse and not wrong and smaller}


def _stored(model: Optimized, convolution: Convolution) -> tuple[str, np.ndarray | None]:
    """The kernel that a convolution has in a file, and its weight there."""
    operator = model.convolutions.get(convolution.variable)
    if operator is None:
        return _MERGED, None
    if not operator.sparse and model.parameters[operator.inputs["Filter"]].size != np.prod(convolution.shape):
        return _MERGED, None
    return "sparse" if operator.sparse else "dense", model.weight(operator, convolution.shape, convolution.pixels)


def _is_int8(model: Optimized) -> bool:
    return any(model.parameters[operator.inputs["NonZeroWeights"]].dtype == np.int8 for operator in model.operators
               if operator.sparse)


def _zeros(array: np.ndarray) -> int:
    return array.size - int(np.count_nonzero(array))


def verify(context: HookContext) -> None:
    """Post-train hook: checks each artefact there is, and notes the results in `context.checks`.

    A result that does not hold is noted, not raised, so that the report can still be written: `require` raises.
    """
    print("counting the zeros in the files ...", flush=True)
    made = context.artefacts
    if "pdparams" in made:
        context.checks["pdparams"] = check_arrays(context, load_arrays(made["pdparams"]))
    if "inference" in made:
        context.checks["pdiparams"] = check_arrays(context, load_inference(made["inference"]))
    for name in ("nb", "nb_int8"):
        if {"inference", f"{name}_dense", f"{name}_sparse"} <= made.keys():
            context.checks[name] = check_nb(context, made[f"{name}_dense"], made[f"{name}_sparse"])


def require(context: HookContext) -> None:
    """Post-train hook: raises PipelineError if a check did not hold."""
    for name, check in context.checks.items():
        if check["ok"]:
            continue
        wrong = f"; other weights than the network's in {_first(check['wrong'])}" if check["wrong"] else ""
        if name.startswith("nb"):
            dense = f"; dense: {_first(check['dense_layers'])}" if check["dense_layers"] else ""
            file, run_sparse = context.artefacts[f"{name}_sparse"], check["planned"] - len(check["dense_layers"])
            raise PipelineError(f"{file}: {run_sparse} of {check['planned']} planned layers run sparse; "
                            f"{check['sparse_bytes']:,} bytes, dense {check['dense_bytes']:,}{dense}{wrong}")
        raise PipelineError(f"{name}: {check['sparsity']:.4%} zeros in the weights to prune, target "
                        f"{check['target']:.4%}{wrong}")


def _first(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def describe(check: Mapping[str, Any]) -> str:
    """A check in words: whether it holds, and its figures."""
    figures = ", ".join(f"{key} {value}" for key, value in check.items() if isinstance(value, (int, float))
                        and key != "ok")
    return f"{'holds' if check['ok'] else 'DOES NOT HOLD'} ({figures})"


def layer_table(context: HookContext) -> str:
    """The zeros of each weight in the network and in each file that was checked, and its kernels."""
    files = {name: {layer["name"]: layer for layer in check["layers"]} for name, check in context.checks.items()
             if name.startswith("nb")}
    stored = {name: check["zeros"] for name, check in context.checks.items() if not name.startswith("nb")}
    rows = []
    for layer in context.sparsity.layers:
        if not layer.pruned and not any(layer.name in found for found in files.values()):
            continue
        row = [layer.name, "x".join(map(str, layer.shape)), layer.zeros]
        row += [zeros.get(layer.name) for zeros in stored.values()]
        for found in files.values():
            row += [found.get(layer.name, {}).get(key) for key in ("zeros", "kernel")]
        row.append("pruned" if layer.pruned else layer.reason)
        rows.append(["-" if cell is None else f"{cell:,}" if isinstance(cell, int) else cell for cell in row])
    headers = ["zeros in", "shape", "network", *stored, *(header for name in files for header in (name, "kernel")), ""]
    return render_table(headers, rows, f"llr{'r' * len(stored)}{'rl' * len(files)}l")


def print_verification(context: HookContext) -> None:
    """Post-train hook: prints the zeros of each layer in each file, and a line for each check."""
    print(layer_table(context))
    for name, check in context.checks.items():
        print(f"{name}: {describe(check)}")
