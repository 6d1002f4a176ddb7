import numpy as np
import paddle
import pytest
from helpers import PADDLE3, run_exported
from paddle import nn
from paddle.static import InputSpec

from paddle_sparse_cb import GMPPruner, HookContext, InputError, make_plan, measure_sparsity
from paddle_sparse_cb.deploy import Export, OptimizeLite, QuantizeInt8, fail_on_mismatch, verify
from paddle_sparse_cb.deploy.export import export
from paddle_sparse_cb.deploy.lite.nb import read_nb
from paddle_sparse_cb.deploy.quantize import quantize
from paddle_sparse_cb.errors import PipelineError
from paddle_sparse_cb.utils.weight_files import load_inference

SPEC = [InputSpec([1, 3, 32, 32], "float32", "image")]

needs_paddle2 = pytest.mark.skipif(PADDLE3, reason="Paddle 3 cannot quantize a model for Paddle-Lite")


def prune(network, folder, ratio):
    plan = make_plan(network, SPEC)
    GMPPruner(
        network, ratio=ratio, local_sparsity=True, plan=plan, configs={"initial_ratio": ratio, "pruning_steps": 1}
    ).step()
    return HookContext(network, folder, plan, measure_sparsity(network, plan), ratio)


def with_activation(activation):
    return nn.Sequential(
        nn.Conv2D(3, 64, 3, padding=1),
        nn.BatchNorm2D(64),
        activation,
        nn.Conv2D(64, 128, 1),
        nn.BatchNorm2D(128),
        activation,
        nn.Conv2D(128, 256, 1),
        activation,
    )


def samples(count=4):
    return [{"image": np.random.rand(3, 32, 32).astype("float32")} for _ in range(count)]


@needs_paddle2
@pytest.mark.parametrize("activation", [nn.ReLU(), nn.ReLU6()])
def test_the_sparse_int8_file_passes_verification_and_is_the_smallest(activation, tmp_path):
    context = prune(with_activation(activation), tmp_path, 0.9)
    for hook in (Export(SPEC), QuantizeInt8(samples()), OptimizeLite(), verify, fail_on_mismatch):
        hook(context)
    assert {path.name for path in tmp_path.glob("*.nb")} == {
        "model_dense.nb",
        "model_sparse.nb",
        "model_int8_dense.nb",
        "model_int8_sparse.nb",
    }
    fp32, int8 = context.checks["nb"], context.checks["nb_int8"]
    assert int8["sparse_convs"] == int8["planned"] == 2
    assert int8["sparse_bytes"] < int8["dense_bytes"] < fp32["dense_bytes"]
    assert int8["sparse_bytes"] < fp32["sparse_bytes"]
    model = read_nb(context.artefacts["nb_int8_sparse"])
    assert all(model.parameters[op.inputs["NonZeroWeights"]].dtype == np.int8 for op in model.operators if op.sparse)


@needs_paddle2
def test_zeros_stay_zero_and_the_outputs_are_close(tmp_path):
    context = prune(with_activation(nn.ReLU()), tmp_path, 0.75)
    calibration = samples(16)
    Export(SPEC)(context)
    prefix = quantize(context.artefacts["inference"], tmp_path / "int8" / "model", calibration)
    own, quantized = load_inference(context.artefacts["inference"]), load_inference(prefix)
    for layer in context.plan.pruned:
        assert not (quantized[layer.name][own[layer.name] == 0]).any()
        np.testing.assert_array_equal(quantized[layer.name], np.round(quantized[layer.name]))
    image = calibration[0]["image"][None]
    expected, output = run_exported(context.artefacts["inference"], image)[0], run_exported(prefix, image)[0]
    assert np.abs(output - expected).max() < 0.05 * np.abs(expected).max()
    assert np.abs(output - expected).max() > 0


@pytest.mark.parametrize(("activation", "op_type"), [(nn.Hardswish(), "hard_swish"), (nn.LeakyReLU(), "leaky_relu")])
def test_an_activation_that_paddle_lite_scales_twice_is_refused(activation, op_type, tmp_path):
    context = prune(with_activation(activation), tmp_path, 0.9)
    Export(SPEC)(context)
    with pytest.raises(InputError, match=f"a network with {op_type} cannot be INT8 and sparse: .* wrong results"):
        QuantizeInt8(samples())(context)
    assert "inference_int8" not in context.artefacts


@needs_paddle2
def test_it_is_refused_in_a_model_quantized_elsewhere_too(tmp_path):
    prefix = export(with_activation(nn.Hardswish()), tmp_path / "model", SPEC)
    quantized = quantize(prefix, tmp_path / "int8" / "model", samples())
    context = prune(with_activation(nn.Hardswish()), tmp_path, 0.9)
    context.artefacts.update(inference=prefix, inference_int8=quantized)
    with pytest.raises(InputError, match="int8/model.pdmodel: a network with hard_swish cannot be INT8 and sparse"):
        OptimizeLite()(context)


@needs_paddle2
def test_below_80_percent_zeros_a_warning_says_that_the_sparse_file_is_larger(tmp_path, capsys):
    context = prune(with_activation(nn.ReLU()), tmp_path, 0.7)
    for hook in (Export(SPEC), QuantizeInt8(samples()), OptimizeLite(), verify, fail_on_mismatch):
        hook(context)
    assert "warning: 70% zeros: below about 80% a sparse INT8 file is larger" in capsys.readouterr().out
    assert context.checks["nb_int8"]["sparse_bytes"] > context.checks["nb_int8"]["dense_bytes"]


@needs_paddle2
def test_samples_that_do_not_match_the_inputs_are_refused(tmp_path):
    prefix = export(with_activation(nn.ReLU()), tmp_path / "model", SPEC)
    with pytest.raises(InputError, match="no samples to calibrate with"):
        quantize(prefix, tmp_path / "int8" / "model", [])
    with pytest.raises(
        InputError,
        match=r"sample 1 has shapes .*\(3, 16, 16\).* without the batch dimension .*"
        r"\(3, 32, 32\)",
    ):
        quantize(prefix, tmp_path / "int8" / "model", [*samples(1), {"image": np.zeros((3, 16, 16), "float32")}])


@pytest.mark.skipif(not PADDLE3, reason="Paddle 2 can quantize")
def test_on_paddle_3_the_error_names_the_version_to_use(tmp_path):
    prefix = export(with_activation(nn.ReLU()), tmp_path / "model", SPEC)
    message = f"Paddle {paddle.__version__} cannot quantize a model for Paddle-Lite; .*2.6.2"
    with pytest.raises(PipelineError, match=message):
        quantize(prefix, tmp_path / "int8" / "model", samples())
