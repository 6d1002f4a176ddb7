"""Verifies every file that was made from a network: its tensors, what it was made from, and what it computes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from ..errors import InputError, PipelineError
from ..hooks import HookContext
from ..utils.messages import logger
from ..utils.tables import render_table
from ..utils.weight_files import load_arrays, load_inference
from .lite.check import check_nb
from .manifest import exported_files, find_problems
from .mnn.check import check_mnn
from .program_check import check_outputs

_WEIGHTS_SCOPE = "all {tensors} tensors compared with the network bit for bit"
_NB_SCOPE = (
    "{compared} of {tensors} tensors compared with the exported model, batch norms folded in, all of them between the "
    "files bit for bit; outputs not compared"
)
_INT8_SCOPE = (
    "zeros compared with the network, all {tensors} tensors between the files bit for bit; outputs not compared"
)
_FILE_CHECKS: dict[str, Callable[..., dict[str, Any]]] = {
    "nb": check_nb,
    "nb_fp16": functools.partial(check_nb, precision="FP16"),
    "nb_int8": functools.partial(check_nb, precision="INT8"),
    "mnn": check_mnn,
}
_MANIFEST_SCOPE = "digests of all files and of what they were made from"
_EXPORTED = ("inference", "inference_no_nms")


def check_arrays(context: HookContext, arrays: Mapping[str, np.ndarray], is_complete: bool = True) -> dict[str, Any]:
    """Compares the tensors in a file with the network's, and counts the zeros of the pruned weights.

    Args:
        context: the network, its plan, the target ratio and the least sparsity of each layer.
        arrays: the content of the file, by structured name.
        is_complete: whether the file must hold all tensors of the network; an exported model lacks those that only the
            training needs.

    Returns:
        A dict with `sparsity` (the fraction of zeros over all planned weights), `target`, `zeros` (the number of zeros
        of each planned weight in the file), `tensors` (the number of tensors in the file), `wrong` (names of tensors
        that are missing, not finite, unknown to the network, or differ from the network's in any bit), `too_dense`
        (names of planned weights with fewer zeros than `context.min_sparsity` asks for) and `ok`.
    """
    own = context.network.state_dict()
    known = context.network.to_static_state_dict()  # with the buffers that only an exported model stores
    planned = [layer for layer in context.sparsity.layers if layer.pruned]
    names = [layer.name for layer in planned]
    required = [*names, *own] if is_complete else names
    wrong = [name for name in dict.fromkeys([*required, *arrays]) if not _is_same(arrays.get(name), known.get(name))]
    zeros = {name: _count_zeros(np.asarray(arrays[name])) for name in names if name in arrays}
    numels = {layer.name: layer.numel for layer in planned}
    least = context.min_sparsity
    too_dense = [name for name, count in zeros.items() if count / numels[name] < least.get(name, 0.0)]
    numel = sum(numels.values())
    sparsity = sum(zeros.values()) / numel if numel else 0.0
    return {
        "sparsity": sparsity,
        "target": context.target_ratio,
        "zeros": zeros,
        "tensors": len(arrays),
        "wrong": wrong,
        "too_dense": too_dense,
        "ok": not wrong and not too_dense and sparsity >= context.target_ratio,
    }


def _is_same(stored: Any, own: paddle.Tensor | None) -> bool:
    """Returns whether a stored tensor has the bits of the network's, and is finite."""
    if stored is None or own is None:
        return False
    stored, expected = np.asarray(stored), own.numpy()
    is_finite = stored.dtype.kind != "f" or bool(np.isfinite(stored).all())
    # A scalar, such as a counter of batches, has the shape [] in one version of Paddle and [1] in another.
    return is_finite and stored.size == expected.size and stored.tobytes() == expected.tobytes()


def _count_zeros(array: np.ndarray) -> int:
    return array.size - int(np.count_nonzero(array))


def verify(context: HookContext) -> None:
    """Post-train hook: verifies every file among the artefacts and adds the results to `context.checks`.

    The keys are `pdparams`, `pdiparams` and `pdiparams_no_nms` (see `check_arrays`), `nb`, `nb_fp16` and `nb_int8` (see
    `check_nb`), `mnn` (see `check_mnn`), `manifest` (see `check_manifest`), and `outputs` (see `check_outputs`), for
    which the exported programs are run only if everything else is as it should be. What is wrong is recorded, a missing
    or damaged file too, and not raised, so that a report can still be written; `fail_on_mismatch` raises it.
    """
    logger.info("verifying the files ...")
    artefacts, checks = context.artefacts, context.checks
    if "pdparams" in artefacts:
        weights = artefacts["pdparams"]
        checks["pdparams"] = _check(lambda: check_arrays(context, load_arrays(weights)))
    exported = [name for name in _EXPORTED if name in artefacts]
    for name in exported:
        check = functools.partial(_check_exported, context, artefacts[name])
        checks[name.replace("inference", "pdiparams")] = _check(check)
    for name, check_files in _FILE_CHECKS.items():
        dense, sparse = (artefacts.get(f"{name}_{kind}") for kind in ("dense", "sparse"))
        if "inference" in artefacts and dense and sparse:
            checks[name] = _check(functools.partial(check_files, context, dense, sparse))
    if artefacts.keys() - {"pdparams"}:
        checks["manifest"] = _check(lambda: check_manifest(context))
    if exported:
        failed = [name for name, result in checks.items() if not result["ok"] and name != "outputs"]
        checks["outputs"] = _not_run(failed) if failed else _check(lambda: check_outputs(context, exported))


def _not_run(failed: list[str]) -> dict[str, Any]:
    return {
        "problems": [f"not run, because a check failed: {_first(failed)}"],
        "scope": "nothing compared",
        "ok": False,
    }


def _check(check: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Returns the result of a check; a file that cannot be read, or for which a package is missing, is a result too."""
    try:
        return check()
    except (InputError, PipelineError) as error:
        return {"problems": [str(error)], "scope": "not readable, so nothing was compared", "ok": False}


def _check_exported(context: HookContext, prefix: Path) -> dict[str, Any]:
    return check_arrays(context, load_inference(prefix), is_complete=False)


def check_manifest(context: HookContext) -> dict[str, Any]:
    """Checks that no artefact was changed, lost, or made from an earlier version of another one.

    Returns:
        A dict with `problems` (one line each) and `ok`.

    Raises:
        InputError: `manifest.json` is damaged.
    """
    required = []
    for name, path in context.artefacts.items():
        required += exported_files(path) if name.startswith("inference") else [path]
    problems = find_problems(context.output, required)
    return {"problems": problems, "scope": _MANIFEST_SCOPE, "ok": not problems}


def fail_on_mismatch(context: HookContext) -> None:
    """Post-train hook: fails if `verify` found a mismatch.

    Raises:
        PipelineError: a check failed. The message names the file and the tensors, and says what was compared.
    """
    for name, check in context.checks.items():
        if not check["ok"]:
            raise PipelineError(f"{context.artefacts.get(f'{name}_sparse', name)}: {_summary(check)}")


def describe(check: Mapping[str, Any]) -> str:
    """Describes the result of a check in one line: the verdict, the figures, and what was and was not compared.

    Args:
        check: a value of `HookContext.checks`, or of `checks` in `report.json`.

    Examples:
        >>> describe({"sparsity": 0.75, "target": 0.75, "tensors": 9, "wrong": [], "ok": True}).split(" (")[0]
        'ok: 75.0000% zeros in the pruned weights, target 75.0000%'
    """
    return f"{'ok' if check['ok'] else 'FAILED'}: {_summary(check)}"


def _summary(check: Mapping[str, Any]) -> str:
    if "problems" in check:
        found = "; ".join(check["problems"][:3]) or check.get("found", "no file is missing, changed or stale")
        more = len(check["problems"]) - 3
        return f"{found}{f' and {more} more' if more > 0 else ''} ({check['scope']})"
    differences = f"; tensors differ: {_first(check['wrong'])}" if check["wrong"] else ""
    if "planned" not in check:
        dense = f"; below their own targets: {_first(check['too_dense'])}" if check.get("too_dense") else ""
        return (
            f"{check['sparsity']:.4%} zeros in the pruned weights, target {check['target']:.4%}{dense}{differences} "
            f"({_WEIGHTS_SCOPE.format_map(check)})"
        )
    dense = f"; dense: {_first(check['dense_layers'])}" if check["dense_layers"] else ""
    paired = f" ({check['paired_convs']} in pairs of output channels)" if check.get("paired_convs") else ""
    operators = "" if check["same_operators"] else "; the operators of the two files differ"
    problems = f"; {_first(check['kernel_problems'], '; ')}" if check["kernel_problems"] else ""
    scope = check.get("scope") or (_INT8_SCOPE if check["precision"] == "INT8" else _NB_SCOPE).format_map(check)
    return (
        f"{check['planned'] - len(check['dense_layers'])} of {check['planned']} planned layers run sparse; "
        f"{check['sparse_convs']} of {check['convs']} convolutions{paired}; {check['sparse_bytes']:,} bytes, dense "
        f"{check['dense_bytes']:,}{dense}{operators}{differences}{problems} ({scope})"
    )


def _first(names: list[str], separator: str = ", ") -> str:
    return separator.join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


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
            found = layers.get(layer.name, {})
            row += [found.get("zeros"), _kernel(found)]
        row.append("pruned" if layer.pruned else layer.reason)
        rows.append(["-" if cell is None else f"{cell:,}" if isinstance(cell, int) else cell for cell in row])
    nb_headers = [header for name in nb_layers for header in (name, "kernel")]
    headers = ["zeros in", "shape", "network", *zeros, *nb_headers, ""]
    return render_table(headers, rows, f"llr{'r' * len(zeros)}{'rl' * len(nb_layers)}l")


def _kernel(layer: Mapping[str, Any]) -> str | None:
    """The kernel of a layer, such as `sparse 2x1`; blocks of one weight are not mentioned."""
    block = layer.get("block") or [1, 1]
    return layer.get("kernel") if block == [1, 1] else f"{layer['kernel']} {'x'.join(map(str, block))}"


def print_verification(context: HookContext) -> None:
    """Post-train hook: prints the zeros of each layer in each file, and one line per check (see `describe`)."""
    print(layer_table(context))
    for name, check in context.checks.items():
        print(f"{name}: {describe(check)}")
