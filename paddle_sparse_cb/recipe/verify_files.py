"""Verifies files by themselves, without the recipe that made them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoints.verify import not_finite, verify_checkpoint, verify_checkpoints
from ..deploy.lite.nb import count_convolutions, read_nb
from ..deploy.manifest import NAME as MANIFEST
from ..deploy.manifest import find_problems
from ..deploy.mnn.reader import read_mnn
from ..deploy.onnx import read_onnx
from ..deploy.program import read_program
from ..errors import InputError, PipelineError
from ..utils.weight_files import load_arrays, load_inference

_CHECKPOINT = (".pdparams", ".pdopt", ".pdscaler", ".pdema", ".pddistill", ".pdsparse")
_EXPORTED = (".pdmodel", ".pdiparams")
SUFFIXES = (*_CHECKPOINT, *_EXPORTED, ".nb", ".mnn", ".onnx")


def is_verifiable(path: str) -> bool:
    """Returns whether a command-line argument names files to verify, and not a recipe."""
    return Path(path).suffix in SUFFIXES or Path(path).is_dir()


def verify_files(path: Path) -> None:
    """Verifies a file or a folder of checkpoints, and prints in one line what was found and what was compared.

    A checkpoint is verified with its `.pdsparse` file (see `verify_checkpoint`). Without the network nothing else is
    known of a file than whether its values are finite, how many are zero, and whether `manifest.json` knows it.

    Args:
        path: a folder of checkpoints, or a file with one of `SUFFIXES`.

    Raises:
        InputError: the file is missing, or the folder has no checkpoints.
        PipelineError: the verification failed; the message has a line for each problem.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file")
    if path.is_dir():
        found, problems = _verify_folder(path)
    elif path.suffix in _CHECKPOINT:
        found, problems = _verify_checkpoint(path)
    else:
        found, problems = _verify_deployed(path)
    if problems:
        raise PipelineError("\n".join(problems))
    print(f"{path}: ok: {found}")


def _verify_folder(folder: Path) -> tuple[str, list[str]]:
    count, problems = verify_checkpoints(folder)
    if not count:
        raise InputError(f"{folder}: no checkpoints in this folder; name a recipe, a folder of checkpoints or a file")
    return f"{count} checkpoints (digests, zeros of the masks, finite values)", problems


def _verify_checkpoint(path: Path) -> tuple[str, list[str]]:
    state = path.with_suffix(".pdsparse")
    if state.is_file():
        found, problems = verify_checkpoint(state)
        if found is not None and path.name not in (*found.state.files, state.name):
            problems.append(f"{path}: {state.name} does not name this file")
        pruned = sum(int(np.count_nonzero(~mask)) for mask in found.state.masks.values()) if found else 0
        return f"{pruned:,} pruned weights are zero (digests, zeros of the masks, finite values)", problems
    arrays = load_arrays(path)
    problems = [f"{path}: {name} is not finite" for name in not_finite(arrays)]
    weights = {name: array for name, array in arrays.items() if np.ndim(array) == 4 and array.shape[2:] == (1, 1)}
    return f"{_zeros(weights)} (no {state.name} beside it, so zeros are counted and not compared)", problems


def _verify_deployed(path: Path) -> tuple[str, list[str]]:
    problems = []
    for folder in (path.parent, path.parent.parent):
        if (folder / MANIFEST).is_file():
            problems += find_problems(folder, [path])
            break
    arrays, found = _READERS.get(path.suffix, _read_exported)(path)
    return found, [*problems, *(f"{path}: {name} is not finite" for name in not_finite(arrays))]


def _read_exported(path: Path) -> tuple[dict[str, Any], str]:
    """Returns the arrays in a file, and what was found; as do all of `_READERS`."""
    prefix = path.with_suffix("")
    arrays = load_inference(prefix)
    may_be_sparse = [name for name, one in read_program(prefix).convolutions.items() if one.may_be_sparse]
    return arrays, _zeros({name: arrays[name] for name in may_be_sparse})


def _read_nb(path: Path) -> tuple[dict[str, Any], str]:
    counted = count_convolutions(path)
    return read_nb(path).parameters, f"{counted.sparse} of {counted.total} convolutions have sparse kernels"


def _read_mnn(path: Path) -> tuple[dict[str, Any], str]:
    convolutions = read_mnn(path).convolutions
    arrays = {f"{one.name} {kind}": getattr(one, kind) for one in convolutions for kind in ("values", "bias")}
    sparse = [one for one in convolutions if one.runs_sparse]
    zeros, size = sum(one.size - one.values.size for one in sparse), sum(one.size for one in sparse)
    share = f", {zeros / size:.2%} zeros in them" if sparse else ""
    return arrays, f"{len(sparse)} of {len(convolutions)} convolutions have sparse kernels{share}"


def _read_onnx(path: Path) -> tuple[dict[str, Any], str]:
    model = read_onnx(path)
    weights = {layer.weight: model.constants[layer.weight] for layer in model.layers if not layer.is_linear}
    return model.constants, _zeros({name: one for name, one in weights.items() if one.shape[2:] == (1, 1)})


_READERS = {".nb": _read_nb, ".mnn": _read_mnn, ".onnx": _read_onnx}


def _zeros(weights: dict[str, Any]) -> str:
    numel = sum(array.size for array in weights.values())
    zeros = numel - sum(int(np.count_nonzero(array)) for array in weights.values())
    return f"{zeros / numel if numel else 0:.2%} zeros in {len(weights)} 1x1 convolutions"
