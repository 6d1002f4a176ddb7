from dataclasses import replace

import numpy as np
import paddle
import pytest
from helpers import conv
from paddle import nn
from paddle.static import InputSpec

from paddle_sparse_cb import GMPPruner, HookContext, InputError, PrunePlan, make_plan, measure_sparsity
from paddle_sparse_cb.deploy.export import Export
from paddle_sparse_cb.deploy.lite.optimizer import OptimizeLite
from paddle_sparse_cb.deploy.verify import check_arrays, print_verification, require, verify
from paddle_sparse_cb.errors import PipelineError
from paddle_sparse_cb.utils.legacy_programs import legacy_program_format

SPEC = [InputSpec([1, 1, 8, 8], "float32", "x")]


def prepared(network, folder):
    plan = make_plan(network, SPEC)
    GMPPruner(network, ratio=0.75, local_sparsity=True, plan=plan,
              configs={"initial_ratio": 0.75, "pruning_steps": 1}).step()
    paddle.save(network.state_dict(), str(folder / "final.pdparams"))
    return HookContext(network, folder, plan, measure_sparsity(network, plan), 0.75,
                       artefacts={"pdparams": folder / "final.pdparams"})


@pytest.fixture
def context(network, tmp_path):
    return prepared(network, tmp_path)


def test_zeros_are_found_in_every_file(context):
    for hook in (Export(SPEC), OptimizeLite(), verify, require):
        hook(context)
    assert set(context.checks) == {"pdparams", "pdiparams", "nb"}
    assert context.checks["pdparams"]["sparsity"] == context.checks["pdiparams"]["sparsity"] == 0.75
    assert context.checks["nb"]["sparse_convs"] == context.checks["nb"]["planned"] == 2


def made(context):
    for hook in (Export(SPEC), OptimizeLite(), verify):
        hook(context)
    return context


def test_each_layer_of_the_file_is_listed_with_its_zeros_and_its_kernel(context, capsys):
    layers = made(context).checks["nb"]["layers"]
    assert [(layer["name"], layer["zeros"], layer["kernel"]) for layer in layers] == [
        ("stem.0.weight", 0, "dense"), ("depthwise.weight", 0, "dense"), ("expand.weight", 768, "sparse"),
        ("squeeze.1.weight", 0, "dense"), ("squeeze.3.weight", 0, "dense"), ("project.weight", 1536, "sparse"),
        ("strided.weight", 0, "dense")]
    print_verification(context)
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("project.weight"))
    assert row.split() == ["project.weight", "32x64x1x1", "1,536", "1,536", "1,536", "1,536", "sparse", "pruned"]


def test_layers_that_lite_merges_are_told_from_dense_ones(tmp_path):
    network = nn.Sequential(nn.Conv2D(1, 16, 3), nn.ReLU(), conv(16, 16), conv(16, 72), nn.ReLU(), nn.Conv2D(72, 8, 1))
    context = prepared(network, tmp_path)
    context.artefacts["inference"] = tmp_path / "inference" / "model"
    network.eval()
    with legacy_program_format():
        paddle.jit.save(network, str(context.artefacts["inference"]), SPEC)  # as `Export` would not
    OptimizeLite()(context)
    verify(context)
    assert [layer["kernel"] for layer in context.checks["nb"]["layers"]] == ["dense", "merged", "merged", "sparse"]
    with pytest.raises(PipelineError, match="1 of 3 planned layers run sparse; .*; dense: 2.weight, 3.weight$"):
        require(context)


def test_a_layer_that_runs_dense_is_named_although_its_zeros_are_right(context):
    made(context)
    project = next(layer for layer in context.plan.layers if layer.name == "strided.weight")
    context.plan = PrunePlan((*context.plan.pruned, replace(project, pruned=True)))
    verify(context)
    assert context.checks["nb"]["dense_layers"] == ["strided.weight"]
    with pytest.raises(PipelineError, match=r"2 of 3 planned layers run sparse; .*; dense: strided.weight$"):
        require(context)


def test_a_dense_file_in_the_place_of_the_sparse_one_does_not_pass(context):
    made(context)
    context.artefacts["nb_sparse"] = context.artefacts["nb_dense"]
    verify(context)
    with pytest.raises(PipelineError, match=r"model_dense.nb: 0 of 2 planned layers run sparse; (\S+) bytes, dense \1;"):
        require(context)


@pytest.mark.parametrize("file", ["nb_dense", "nb_sparse"])
def test_a_file_of_other_weights_does_not_pass(context, file):
    made(context)
    weight = context.network.expand.weight
    kept = weight.numpy()
    weight.set_value(np.where(kept == 0, 0, kept * 2) if file == "nb_dense" else np.roll(kept, 1))
    other = HookContext(context.network, context.output / "other", context.plan, context.sparsity, 0.75)
    made(other)
    weight.set_value(kept)
    context.artefacts[file] = other.artefacts[file]
    verify(context)
    assert context.checks["nb"]["sparse_convs"] == 2
    with pytest.raises(PipelineError, match="other weights than the network's in expand.weight"):
        require(context)


def test_a_file_made_for_an_input_of_another_size_does_not_pass(context):
    made(context)
    Export([InputSpec([1, 1, 16, 16], "float32", "x")])(context)
    with pytest.raises(InputError, match=r"model_sparse.nb: .* on an input of 256 pixels: .* offsets are others"):
        verify(context)


def test_a_checkpoint_with_one_zero_too_few_does_not_pass(context):
    network = context.network
    state = {name: value.numpy() for name, value in network.state_dict().items()}
    weight = state["expand.weight"]
    weight[tuple(np.argwhere(weight == 0)[0])] = 1e-9
    paddle.save(state, str(context.artefacts["pdparams"]))
    verify(context)
    assert context.checks["pdparams"]["wrong"] == ["expand.weight"]
    with pytest.raises(PipelineError, match=r"pdparams: 74.9674% zeros .* other weights than .* in expand.weight"):
        require(context)


def test_the_same_zeros_in_other_places_do_not_pass(context):
    state = {name: value.numpy() for name, value in context.network.state_dict().items()}
    state["expand.weight"] = np.roll(state["expand.weight"], 1)
    paddle.save(state, str(context.artefacts["pdparams"]))
    verify(context)
    assert context.checks["pdparams"]["sparsity"] == 0.75
    assert context.checks["pdparams"]["wrong"] == ["expand.weight"]
    assert not context.checks["pdparams"]["ok"]


def test_a_layer_that_runs_dense_does_not_pass(context):
    context.network.project.weight.set_value(paddle.rand(context.network.project.weight.shape))
    context.artefacts.clear()
    for hook in (Export(SPEC), OptimizeLite(), verify):
        hook(context)
    assert context.checks["pdiparams"]["sparsity"] < 0.75
    assert context.checks["nb"]["sparse_convs"] == 1
    del context.checks["pdiparams"]
    with pytest.raises(PipelineError, match=r"model_sparse.nb: 1 of 2 planned layers run sparse"):
        require(context)


def test_a_missing_weight_does_not_pass(context):
    result = check_arrays(context, {})
    assert not result["ok"]
    assert result["wrong"] == ["expand.weight", "project.weight"]
