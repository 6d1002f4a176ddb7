"""Checks two `.mnn` files of one network against each other, and against the exported model: values and outputs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError, PipelineError
from ...hooks import HookContext
from ...utils.layers import named_weights
from ...utils.weight_files import load_parameters, load_structured_names
from ..onnx import find_differing_parameters, read_onnx
from ..outputs import make_noise, relative_error, run_models
from ..program import read_program
from .converter import convert
from .expected import ExpectedConvolution, find_expected, group_by_variable
from .reader import MNNFile, read_mnn

# The largest error of an output over its largest magnitude. FP32 rounding makes up to 4e-4 in PicoDet, which amplifies
# it, and 1e-5 in MobileNets; a wrong stride, activation or weight makes more.
MAX_ERROR = 1e-3


def check_mnn(context: HookContext, dense: Path, sparse: Path) -> dict[str, Any]:
    """Checks two `.mnn` files of the same network.

    Both must have the same operators, and the same weights and biases, bit for bit; these must be those of the exported
    model, with the batch norms folded in. In `sparse` every planned weight must have a sparse kernel, and be zero
    wherever the network's is. `sparse` must be the smaller file. The `.onnx` file must have the parameters of the
    exported model, and give the same two files when it is converted again. Then the files are run, and their outputs
    compared with those of the exported model.

    Args:
        context: the network, its plan, the artefacts `onnx` and `inference` or, where that contains non-maximum
            suppression, `inference_no_nms`, and the samples to run the files on.
        dense: the `.mnn` file with dense kernels.
        sparse: the `.mnn` file with sparse kernels.

    Returns:
        A dict with `planned`, `sparse_convs`, `convs`, `dense_bytes`, `sparse_bytes`, `layers`, `dense_layers`,
        `tensors`, `compared`, `wrong`, `same_operators` and `ok` as in `lite.check.check_nb`; `dense_error` and
        `sparse_error`, the relative errors of the outputs (see `outputs.relative_error`), None if the files were not
        run or the error is too large; `kernel_problems`, what else is wrong, one line each; and `scope`, which says
        what was compared.

    Raises:
        InputError: an artefact or a file is missing, or a file is damaged.
        PipelineError: a package of the extra `mnn` is missing.
    """
    if "onnx" not in context.artefacts:
        raise InputError(f"{sparse}: the artefact 'onnx', which it was made from, is missing")
    prefix, onnx_path = source_model(context), context.artefacts["onnx"]
    onnx, names = read_onnx(onnx_path), load_structured_names(prefix)
    dense_file, sparse_file = read_mnn(dense), read_mnn(sparse)
    expected = find_expected(dense_file.convolutions, onnx.layers, load_parameters(prefix))
    layers, wrong = _compare_zeros(context, sparse_file, expected, names)
    others = [*_differing(dense_file, sparse_file, expected), *find_differing_parameters(onnx, prefix)]
    wrong = list(dict.fromkeys([*wrong, *(names.get(variable, variable) for variable in others)]))
    planned = {layer.name for layer in context.plan.pruned}
    dense_layers = sorted(planned - {layer["name"] for layer in layers if layer["kernel"].startswith("sparse")})
    dense_bytes, sparse_bytes = dense.stat().st_size, sparse.stat().st_size
    result: dict[str, Any] = {
        "planned": len(planned),
        "sparse_convs": sum(one.runs_sparse for one in sparse_file.convolutions),
        "convs": len(sparse_file.convolutions),
        "dense_bytes": dense_bytes,
        "sparse_bytes": sparse_bytes,
        "layers": layers,
        "dense_layers": dense_layers,
        "tensors": 2 * len(dense_file.convolutions),
        "compared": 2 * len(expected),
        "wrong": wrong,
        "same_operators": dense_file.operators == sparse_file.operators,
        "dense_error": None,
        "sparse_error": None,
        "kernel_problems": [*_find_faults(prefix, dense_file, sparse_file)],
    }
    is_whole = not wrong and not dense_layers and result["same_operators"] and not result["kernel_problems"]
    if is_whole:
        _add_outputs(result, context, dense_file, sparse_file)
    result["scope"] = _scope(result)
    result["ok"] = is_whole and not result["kernel_problems"] and sparse_bytes < dense_bytes
    return result


def source_model(context: HookContext) -> Path:
    """Returns the exported model that the MNN files are made from.

    Raises:
        InputError: nothing was exported.
    """
    for name in ("inference_no_nms", "inference"):
        if name in context.artefacts:
            return context.artefacts[name]
    raise InputError("MNN: there is no artefact 'inference': call the hook Export before ConvertMNN")


def _compare_zeros(
    context: HookContext, sparse: MNNFile, expected: Mapping[str, ExpectedConvolution], names: Mapping[str, str]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Returns a row per weight of the network, and the names of those that lack a zero of the network."""
    convolutions = {one.name: one for one in sparse.convolutions}
    by_name = {names.get(variable): made for variable, made in group_by_variable(expected).items()}
    rows, wrong = [], []
    for name, _, weight in named_weights(context.network):
        stored = [(convolutions[one], expected[one]) for one in by_name.get(name, ()) if one in convolutions]
        if not stored:
            continue
        own, zeros = weight.numpy(), {}
        for convolution, expectation in stored:
            found, network = convolution.weight() == 0, expectation.arrange(own) == 0
            zeros[str(expectation.rows)] = int(found.sum())  # a layer that is called twice has the same rows twice
            if found.shape != network.shape or not found[network].all():
                wrong.append(name)
        blocks = {convolution.block for convolution, _ in stored}
        runs_sparse = all(convolution.runs_sparse for convolution, _ in stored)
        kernel = f"sparse {max(blocks)}x1" if max(blocks) > 1 else "sparse"
        rows.append({"name": name, "kernel": kernel if runs_sparse else "dense", "zeros": sum(zeros.values())})
    return rows, wrong


def _differing(dense: MNNFile, sparse: MNNFile, expected: Mapping[str, ExpectedConvolution]) -> Iterator[str]:
    """Yields the variables of weights that differ between the files or from the expected values, or their bias does."""
    others = {one.name: one for one in sparse.convolutions}
    for one in dense.convolutions:
        expectation, other = expected.get(one.name), others.get(one.name)
        is_same = (
            other is not None
            and one.weight().tobytes() == other.weight().tobytes()
            and one.bias.tobytes() == other.bias.tobytes()
        )
        is_finite = np.isfinite(one.values).all() and np.isfinite(one.bias).all()
        if not is_same or not is_finite or (expectation is not None and not expectation.matches(one)):
            yield one.name if expectation is None else expectation.variable


def _find_faults(prefix: Path, dense: MNNFile, sparse: MNNFile) -> Iterator[str]:
    inputs = read_program(prefix).inputs
    for file in (dense, sparse):
        if file.inputs != inputs:
            yield f"{file.path.name} has the inputs {file.inputs}, {prefix.name}.pdmodel {inputs}"
    if any(one.positions is not None for one in dense.convolutions):
        yield f"{dense.path.name} has sparse kernels"
    blocks = {one.block for one in sparse.convolutions} - {0}
    if len(blocks) > 1:
        yield f"{sparse.path.name} has kernels for blocks of {sorted(blocks)}"


def _add_outputs(result: dict[str, Any], context: HookContext, dense: MNNFile, sparse: MNNFile) -> None:
    """Converts the `.onnx` file again, runs the files, and adds the errors of their outputs and what is wrong."""
    prefix, faults = source_model(context), result["kernel_problems"]
    result["converted_again"] = dense.version == sparse.version == version("MNN")
    if result["converted_again"]:
        faults += _find_unlike_conversion(context.artefacts["onnx"], dense, sparse)
    if faults:  # MNN trusts what it loads
        return
    samples = context.samples or make_noise(prefix)
    result["samples"] = f"{len(samples)} {'samples' if context.samples else 'inputs of noise'}"
    try:
        outputs, *found = run_models(prefix, [dense.path, sparse.path], samples)
    except PipelineError as failure:
        faults.append(str(failure))
        return
    result["is_constant"] = len(samples) > 1 and relative_error(outputs[:1], outputs[1:2]) <= MAX_ERROR
    for kind, file, one in zip(("dense", "sparse"), (dense, sparse), found):
        relative = relative_error(outputs, one)
        if relative <= MAX_ERROR:
            result[f"{kind}_error"] = relative
        elif relative == float("inf"):
            faults.append(f"the outputs of {file.path.name} are not finite, or have other shapes than Paddle's")
        else:
            faults.append(f"the outputs of {file.path.name} differ from Paddle's by {relative:.1e} of their magnitude")


def _find_unlike_conversion(onnx: Path, dense: MNNFile, sparse: MNNFile) -> list[str]:
    """Converts the `.onnx` file again, and returns the files that are not made again byte for byte."""
    block = max((one.block for one in sparse.convolutions), default=1)
    with tempfile.TemporaryDirectory() as folder:
        again = [
            convert(onnx, Path(folder, "dense.mnn"), sparse=False),
            convert(onnx, Path(folder, "sparse.mnn"), sparse=True, block=max(block, 1)),
        ]
        return [
            f"{file.path.name} is not what MNN makes of {onnx.name}"
            for file, made in zip((dense, sparse), again)
            if file.path.read_bytes() != made.read_bytes()
        ]


def _scope(result: Mapping[str, Any]) -> str:
    compared = (
        f"{result['compared']} of {result['tensors']} weights and biases compared with the exported model, batch norms "
        "folded in, all of them between the files bit for bit"
    )
    if "samples" not in result:
        return f"{compared}; not run"
    if result["dense_error"] is None or result["sparse_error"] is None:
        return f"{compared}; run on {result['samples']}"
    again = "converted again byte for byte" if result["converted_again"] else "made by another version of MNN"
    return (
        f"{compared}; {again}; outputs for {result['samples']} within {result['dense_error']:.1e} (dense) and "
        f"{result['sparse_error']:.1e} (sparse) of Paddle's, at most {MAX_ERROR:g}"
        f"{', but they hardly depend on the input' if result['is_constant'] else ''}"
    )
