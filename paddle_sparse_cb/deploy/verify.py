"""The promise, checked: the zeros of the network are in every file that was made of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..context import HookContext
from ..errors import StepError
from ..layers import named_weights
from ..stored import load_arrays, load_inference
from .lite import count_convolutions


def check_arrays(context: HookContext, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Counts zeros again in stored weights, and compares these with the network's.

    Args:
        context: the network that was stored, and the ratio that it was pruned to.
        arrays: structured name to array.

    Returns:
        `sparsity` (zeros over the weights to prune), `target`, `wrong` (names of weights to prune that are missing or
        are not the network's) and `ok`.
    """
    own = {name: weight for name, _, weight in named_weights(context.network)}
    planned = [layer for layer in context.sparsity.layers if layer.pruned]
    wrong = [layer.name for layer in planned
             if not np.array_equal(np.asarray(arrays.get(layer.name)), own[layer.name].numpy())]
    found = [np.asarray(arrays[layer.name]) for layer in planned if layer.name in arrays]
    zeros = sum(array.size - np.count_nonzero(array) for array in found)
    numel = sum(layer.numel for layer in planned)
    sparsity = int(zeros) / numel if numel else 0.0
    return {"sparsity": sparsity, "target": context.target_ratio, "wrong": wrong,
            "ok": not wrong and sparsity >= context.target_ratio}


def check_nb(planned: int, dense: Path, sparse: Path) -> dict[str, Any]:
    """Checks an optimized model: every planned layer has a sparse kernel, and the file is smaller for it.

    Returns:
        `planned`, `sparse_convs`, `convs`, `dense_bytes`, `sparse_bytes` and `ok`.
    """
    convolutions = count_convolutions(sparse)
    dense_bytes, sparse_bytes = dense.stat().st_size, sparse.stat().st_size
    return {"planned": planned, "sparse_convs": convolutions.sparse, "convs": convolutions.total,
            "dense_bytes": dense_bytes, "sparse_bytes": sparse_bytes,
            "ok": convolutions.sparse == planned and sparse_bytes < dense_bytes}


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
    if {"nb_dense", "nb_sparse"} <= made.keys():
        context.checks["nb"] = check_nb(len(context.plan.pruned), made["nb_dense"], made["nb_sparse"])


def require(context: HookContext) -> None:
    """Post-train hook: raises StepError if a check did not hold."""
    for name, check in context.checks.items():
        if check["ok"]:
            continue
        if name == "nb":
            raise StepError(f"{context.artefacts['nb_sparse']}: {check['sparse_convs']} of {check['planned']} planned "
                            f"layers run sparse; {check['sparse_bytes']:,} bytes, dense {check['dense_bytes']:,}")
        wrong = f"; other weights than the network's in {', '.join(check['wrong'][:3])}" if check["wrong"] else ""
        raise StepError(f"{name}: {check['sparsity']:.4%} zeros in the weights to prune, target "
                        f"{check['target']:.4%}{wrong}")


def describe(check: Mapping[str, Any]) -> str:
    """A check in words: whether it holds, and its figures."""
    figures = ", ".join(f"{key} {value}" for key, value in check.items() if key not in ("ok", "wrong"))
    return f"{'holds' if check['ok'] else 'DOES NOT HOLD'} ({figures})"


def print_checks(context: HookContext) -> None:
    """Post-train hook: prints a line for each check."""
    for name, check in context.checks.items():
        print(f"{name}: {describe(check)}")
