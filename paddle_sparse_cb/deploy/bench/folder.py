"""Finds the models in a folder: those of a recipe's output folder, or anybody's."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError

from ...errors import InputError
from ...utils.weight_files import load_parameters
from ..mnn.reader import read_mnn
from .engines import ENGINES, Engine
from .run import Candidate

SUBFOLDERS = ("", "inference", "inference_no_nms")
_LEAST_PRUNED = 0.1  # zeros in a layer that counts as pruned


def find_candidates(folder: Path) -> tuple[list[Candidate], list[str]]:
    """Returns what can be measured in a folder and its folders of exported models.

    Args:
        folder: the folder. Its models should be of one network: those with the same inputs are compared.

    Returns:
        A candidate for each model and installed runtime, and a line for each file that was left out.

    Raises:
        InputError: there is no model, or no runtime for any of them.
    """
    files = [path for name in SUBFOLDERS for path in sorted((folder / name).glob("*")) if path.is_file()]
    models = [path for path in files if any(path.suffix == engine.suffix for engine in ENGINES)]
    notes = [
        f"{path.name}: runs on ARM only: measure it on a device (--runner or --adb)"
        for path in files
        if path.suffix == ".nb"
    ]
    if not models:
        suffixes = ", ".join(dict.fromkeys(engine.suffix for engine in ENGINES))
        only_arm = f" ({'; '.join(notes)})" if notes else ""
        raise InputError(f"{folder}: no model that this machine can run: no {suffixes} file{only_arm}")
    candidates = [
        _candidate(engine, path, str(path.relative_to(folder)))
        for path in models
        for engine in ENGINES
        if engine.suffix == path.suffix and engine.version is not None
    ]
    if not candidates:
        raise InputError(
            f"{folder}: no runtime for {models[0].name} is installed: pip install 'paddle_sparse_cb[bench]'"
        )
    return candidates, notes


def _candidate(engine: Engine, path: Path, label: str) -> Candidate:
    if path.suffix == ".mnn":
        kind, ratio, block = describe_mnn(path)
        return Candidate(engine, path, kind, ratio, block, label=label)
    of_program = _ratio_of_program(path) if path.suffix == ".pdmodel" else _ratio_of_onnx(path)
    return Candidate(engine, path, "dense", of_program, label=label)


def zero_ratio(weights: Iterable[np.ndarray]) -> float:
    """Returns the fraction of zeros in the 1x1 convolutions that are pruned: those with at least a tenth of zeros.

    Args:
        weights: the weights of a model; those of other shapes than [n, m, 1, 1] do not count.

    Examples:
        >>> zero_ratio([np.array([0.0, 1.0]).reshape(2, 1, 1, 1), np.ones((4, 4, 1, 1)), np.zeros((4, 4))])
        0.5
    """
    counts = [
        (weight.size - np.count_nonzero(weight), weight.size)
        for weight in weights
        if weight.ndim == 4 and weight.shape[2:] == (1, 1)
    ]
    pruned = [(zeros, size) for zeros, size in counts if zeros >= _LEAST_PRUNED * size]
    return float(sum(zeros for zeros, _ in pruned) / sum(size for _, size in pruned)) if pruned else 0.0


def _ratio_of_program(path: Path) -> float | None:
    return zero_ratio(load_parameters(path.with_suffix("")).values())


def _ratio_of_onnx(path: Path) -> float | None:
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError:
        return None
    try:
        graph = onnx.load(str(path), load_external_data=False).graph
        constants = (one.t for node in graph.node if node.op_type == "Constant" for one in node.attribute)
        tensors = [tensor for tensor in (*graph.initializer, *constants) if len(tensor.dims) == 4]
        if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in tensors):  # another file, anywhere
            return None
        return zero_ratio(numpy_helper.to_array(tensor) for tensor in tensors)
    except (DecodeError, ValueError, TypeError) as error:
        raise InputError(f"{path}: not an ONNX model, or damaged: {type(error).__name__}") from None


def describe_mnn(path: Path) -> tuple[str, float | None, tuple[int, int]]:
    """Returns the kind of a file's kernels, the fraction of zeros in its pruned weights, and the block of zeros.

    Raises:
        InputError: see `read_mnn`.
    """
    convolutions = read_mnn(path).convolutions
    sparse = [one for one in convolutions if one.runs_sparse]
    if sparse:
        zeros = sum(one.size - np.count_nonzero(one.values) for one in sparse)
        return "sparse", zeros / sum(one.size for one in sparse), (max(one.block for one in sparse), 1)
    weights = (one.weight()[:, :, None, None] for one in convolutions if one.kernel == (1, 1) and not one.is_depthwise)
    return "dense", zero_ratio(weights), (1, 1)
