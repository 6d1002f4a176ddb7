import json
import re

import numpy as np
import paddle
import pytest
from helpers import Pointwise, pruned_context
from paddle.static import InputSpec

from paddle_sparse_cb.deploy import ConvertMNN, Export, fail_on_mismatch, isolated, outputs, print_verification, verify
from paddle_sparse_cb.deploy.mnn import check
from paddle_sparse_cb.deploy.mnn.converter import convert
from paddle_sparse_cb.deploy.outputs import relative_error, run_models
from paddle_sparse_cb.errors import PipelineError

SPEC = [InputSpec([1, 1, 8, 8], "float32", "x")]


def verified(context):
    verify(context)
    return context.checks["mnn"]


def test_the_files_of_a_pruned_network_pass_and_the_result_says_what_was_compared(converted, capsys):
    converted.samples = [{"x": np.random.rand(1, 8, 8).astype("float32")} for _ in range(3)]
    result = verified(converted)
    fail_on_mismatch(converted)
    assert (result["planned"], result["sparse_convs"], result["convs"]) == (2, 2, 8)
    assert result["compared"] == result["tensors"] == 16
    assert result["sparse_bytes"] < result["dense_bytes"]
    assert 0 <= result["sparse_error"] < 1e-5
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    layers = {layer["name"]: (layer["kernel"], layer["zeros"]) for layer in result["layers"]}
    assert layers == {
        "stem.0.weight": ("dense", 0),
        "depthwise.weight": ("dense", 0),
        "expand.weight": ("sparse", 768),
        "squeeze.1.weight": ("dense", 0),
        "squeeze.3.weight": ("dense", 0),
        "project.weight": ("sparse", 1536),
        "strided.weight": ("dense", 0),
        "head.weight": ("dense", 0),
    }
    print_verification(converted)
    lines = capsys.readouterr().out.splitlines()
    row = next(line for line in lines if line.startswith("project.weight"))
    assert row.split() == ["project.weight", "32x64x1x1", "1,536", "1,536", "1,536", "sparse", "pruned"]
    line = next(line for line in lines if line.startswith("mnn: "))
    error = r"\d\.\de-\d\d"
    assert re.fullmatch(
        r"mnn: ok: 2 of 2 planned layers run sparse; 2 of 8 convolutions; [\d,]+ bytes, dense [\d,]+ "
        r"\(16 of 16 weights and biases compared with the exported model, batch norms folded in, all of them between "
        r"the files bit for bit; converted again byte for byte; outputs for 3 samples within "
        rf"{error} \(dense\) and {error} \(sparse\) of Paddle's, at most 0.001\)",
        line,
    )


@pytest.fixture(scope="module")
def in_blocks(tmp_path_factory):
    """A network pruned and converted in blocks of four output channels, whose outputs do not depend on the input."""
    paddle.seed(7)
    network = Pointwise()
    network.head.weight.set_value(paddle.zeros([32, 10]))
    context = pruned_context(network, tmp_path_factory.mktemp("blocks"), SPEC, block=(4, 1))
    for hook in (Export(SPEC), ConvertMNN(block=4)):
        hook(context)
    return context


def test_kernels_for_blocks_are_shown_and_outputs_that_prove_nothing_are_mentioned(in_blocks):
    result = verified(in_blocks)
    assert result["ok"], result
    assert {layer["kernel"] for layer in result["layers"] if layer["zeros"]} == {"sparse 4x1"}
    assert result["scope"].endswith("of Paddle's, at most 0.001, but they hardly depend on the input")
    assert "outputs for 2 inputs of noise" in result["scope"]


def test_random_zeros_in_kernels_for_blocks_fail_with_the_dense_layers(converted):
    converted.artefacts["mnn_sparse"] = convert(
        converted.artefacts["onnx"], converted.artefacts["mnn_sparse"], sparse=True, block=8
    )
    assert verified(converted)["dense_layers"] == ["expand.weight", "project.weight"]
    del converted.checks["pdiparams"]
    with pytest.raises(PipelineError, match=r"model_sparse.mnn: 0 of 2 planned layers run sparse; .* dense: expand"):
        fail_on_mismatch(converted)


def test_files_of_another_version_of_mnn_are_compared_and_run_but_not_converted_again(converted, monkeypatch):
    monkeypatch.setattr(check, "version", lambda name: "4.0.0")
    result = verified(converted)
    assert result["ok"]
    assert "made by another version of MNN" in result["scope"]


def test_outputs_that_differ_from_paddles_fail_with_the_error(converted, monkeypatch):
    monkeypatch.setattr(check, "MAX_ERROR", 1e-12)
    result = verified(converted)
    assert not result["ok"]
    assert re.search(
        r"the outputs of model_dense.mnn differ from Paddle's by \d\.\de-\d\d", "; ".join(result["kernel_problems"])
    )
    json.dumps(result, allow_nan=False)


def test_a_process_that_ends_with_an_error_is_a_result(converted):
    (converted.output / "bad.mnn").write_bytes(b"not a model")
    with pytest.raises(PipelineError, match=r"^running bad.mnn: exit code 1: .*bad.mnn: "):
        run_models(
            converted.artefacts["inference"],
            [converted.output / "bad.mnn"],
            outputs.make_noise(converted.artefacts["inference"]),
        )


def test_a_missing_artefact_is_a_result(converted):
    del converted.artefacts["onnx"]
    assert "the artefact 'onnx', which it was made from, is missing" in verified(converted)["problems"][0]


def test_a_missing_package_is_a_result(converted, monkeypatch):
    monkeypatch.setattr(isolated, "find_spec", lambda name: None)
    assert verified(converted)["problems"] == ["onnx is not installed: pip install 'paddle_sparse_cb[mnn]'"]


@pytest.mark.parametrize(
    ("found", "error"),
    [
        ([[1.0, 2.0]], 0.0),
        ([[1.0, 2.2]], 0.1),
        ([[1.0, np.nan]], np.inf),
        ([[1.0]], np.inf),
        ([], np.inf),
    ],
)
def test_the_error_is_relative_to_the_largest_output(found, error):
    expected = [{"y": np.array([1.0, 2.0], "float32")}]
    assert relative_error(expected, [{"y": np.array(one, "float32")} for one in found]) == pytest.approx(error)


def test_the_error_of_a_missing_output_is_infinite_and_zeros_are_equal():
    expected = [{"y": np.array([1.0, 2.0], "float32")}]
    assert relative_error(expected, [{"z": expected[0]["y"]}]) == np.inf
    zeros = [{"y": np.zeros(2, "float32")}]
    assert relative_error(zeros, zeros) == 0
    assert relative_error(zeros, expected) > 1
