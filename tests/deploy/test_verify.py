from dataclasses import replace

import numpy as np
import paddle
import pytest
from helpers import Pointwise, conv
from paddle import nn
from paddle.static import InputSpec

from paddle_sparse_cb import GMPPruner, HookContext, PrunePlan, make_plan, measure_sparsity
from paddle_sparse_cb.deploy import Export, OptimizeLite, fail_on_mismatch, print_verification, verify
from paddle_sparse_cb.deploy.verify import check_arrays, describe
from paddle_sparse_cb.errors import PipelineError
from paddle_sparse_cb.utils.legacy_programs import legacy_program_format

SPEC = [InputSpec([1, 1, 8, 8], "float32", "x")]


def prune(network, folder):
    plan = make_plan(network, SPEC)
    GMPPruner(
        network, ratio=0.75, local_sparsity=True, plan=plan, configs={"initial_ratio": 0.75, "pruning_steps": 1}
    ).step()
    paddle.save(network.state_dict(), str(folder / "final.pdparams"))
    return HookContext(
        network, folder, plan, measure_sparsity(network, plan), 0.75, artefacts={"pdparams": folder / "final.pdparams"}
    )


@pytest.fixture
def context(network, tmp_path):
    """A pruned network with its checkpoint."""
    return prune(network, tmp_path)


def deploy(context):
    for hook in (Export(SPEC), OptimizeLite()):
        hook(context)
    return context


@pytest.fixture
def deployed(context):
    """The same with its exported model and `.nb` files."""
    return deploy(context)


@pytest.fixture(scope="module")
def verified(tmp_path_factory):
    """The same, verified; not to be changed."""
    with paddle.utils.unique_name.guard():
        context = deploy(prune(Pointwise(), tmp_path_factory.mktemp("verified")))
    verify(context)
    return context


def test_every_file_of_a_pruned_network_passes(verified):
    fail_on_mismatch(verified)
    assert set(verified.checks) == {"pdparams", "pdiparams", "nb", "manifest", "outputs"}
    assert verified.checks["pdparams"]["sparsity"] == verified.checks["pdiparams"]["sparsity"] == 0.75
    assert verified.checks["nb"]["sparse_convs"] == verified.checks["nb"]["planned"] == 2


def test_each_layer_is_listed_with_its_zeros_and_its_kernel(verified, capsys):
    layers = verified.checks["nb"]["layers"]
    assert [(layer["name"], layer["zeros"], layer["kernel"]) for layer in layers] == [
        ("stem.0.weight", 0, "dense"),
        ("depthwise.weight", 0, "dense"),
        ("expand.weight", 768, "sparse"),
        ("squeeze.1.weight", 0, "dense"),
        ("squeeze.3.weight", 0, "dense"),
        ("project.weight", 1536, "sparse"),
        ("strided.weight", 0, "dense"),
    ]
    print_verification(verified)
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("project.weight"))
    assert row.split() == ["project.weight", "32x64x1x1", "1,536", "1,536", "1,536", "1,536", "sparse", "pruned"]


def test_each_result_says_what_was_compared_and_what_was_not(verified, capsys):
    print_verification(verified)
    lines = capsys.readouterr().out.splitlines()[-5:]
    tensors = len(verified.network.state_dict())
    weights = (
        f"ok: 75.0000% zeros in the pruned weights, target 75.0000% (all {tensors} tensors compared with the network "
        "bit for bit)"
    )
    assert lines[:2] == [f"pdparams: {weights}", f"pdiparams: {weights}"]
    assert lines[2].startswith("nb: ok: 2 of 2 planned layers run sparse; 2 of 7 convolutions; ")
    assert lines[2].endswith(
        " (16 of 16 tensors compared with the exported model, batch norms folded in, all of them between the files bit "
        "for bit; outputs not compared)"
    )
    assert lines[3] == (
        "manifest: ok: no file is missing, changed or stale (digests of all files and of what they were made from)"
    )
    assert lines[4].startswith("outputs: ok: outputs within ")


def test_layers_that_paddle_lite_merged_are_listed_as_merged_and_not_as_dense(tmp_path):
    network = nn.Sequential(nn.Conv2D(1, 16, 3), nn.ReLU(), conv(16, 16), conv(16, 72), nn.ReLU(), nn.Conv2D(72, 8, 1))
    context = prune(network, tmp_path)
    context.artefacts["inference"] = tmp_path / "inference" / "model"
    network.eval()
    with legacy_program_format():
        paddle.jit.save(network, str(context.artefacts["inference"]), SPEC)  # without the patches of `Export`
    OptimizeLite()(context)
    verify(context)
    assert [layer["kernel"] for layer in context.checks["nb"]["layers"]] == ["dense", "merged", "merged", "sparse"]
    with pytest.raises(
        PipelineError, match=r"1 of 3 planned layers run sparse; .*; dense: 2.weight, 3.weight \(4 of 5 tensors"
    ):
        fail_on_mismatch(context)


class WithConstant(nn.Layer):
    """Has a tensor that is no parameter and in no checkpoint, as PicoDet's anchor points with `eval_size`."""

    def __init__(self):
        super().__init__()
        self.network, self.shift = Pointwise(), paddle.arange(10, dtype="float32")

    def forward(self, x):
        return self.network(x) + self.shift


def test_a_constant_that_only_the_exported_model_stores_is_compared_too(tmp_path):
    context = deploy(prune(WithConstant(), tmp_path))
    verify(context)
    fail_on_mismatch(context)
    file = context.artefacts["inference"].with_suffix(".pdiparams")
    shift = context.network.shift.numpy()
    file.write_bytes(file.read_bytes().replace(shift.tobytes(), (shift + 1).tobytes()))
    verify(context)
    assert context.checks["pdiparams"]["wrong"] == ["shift"]


def test_a_planned_layer_that_runs_dense_fails_and_is_named(deployed):
    strided = next(layer for layer in deployed.plan.layers if layer.name == "strided.weight")
    deployed.plan = PrunePlan((*deployed.plan.pruned, replace(strided, pruned=True)))
    verify(deployed)
    assert deployed.checks["nb"]["dense_layers"] == ["strided.weight"]
    with pytest.raises(PipelineError, match=r"2 of 3 planned layers run sparse; .*; dense: strided.weight \("):
        fail_on_mismatch(deployed)


def test_a_dense_file_in_place_of_the_sparse_one_fails(deployed):
    deployed.artefacts["nb_sparse"] = deployed.artefacts["nb_dense"]
    verify(deployed)
    with pytest.raises(
        PipelineError,
        match=r"model_dense.nb: 0 of 2 planned layers run sparse; 0 of 7 convolutions; "
        r"(\S+) bytes, dense \1;",
    ):
        fail_on_mismatch(deployed)


@pytest.mark.parametrize("file", ["nb_dense", "nb_sparse"])
def test_a_file_with_other_weights_fails(deployed, file):
    weight = deployed.network.expand.weight
    original = weight.numpy()
    weight.set_value(np.where(original == 0, 0, original * 2) if file == "nb_dense" else np.roll(original, 1))
    other = deploy(HookContext(deployed.network, deployed.output / "other", deployed.plan, deployed.sparsity, 0.75))
    weight.set_value(original)
    deployed.artefacts[file] = other.artefacts[file]
    verify(deployed)
    assert deployed.checks["nb"]["sparse_convs"] == 2
    with pytest.raises(PipelineError, match="tensors differ: expand.weight"):
        fail_on_mismatch(deployed)


def test_a_file_for_another_input_size_fails(deployed):
    Export([InputSpec([1, 1, 16, 16], "float32", "x")])(deployed)
    verify(deployed)
    with pytest.raises(PipelineError, match=r"model_sparse.nb: .* on an input of 256 pixels: .* offsets do not match"):
        fail_on_mismatch(deployed)


def test_a_checkpoint_with_one_zero_too_few_fails(context):
    state = {name: value.numpy() for name, value in context.network.state_dict().items()}
    weight = state["expand.weight"]
    weight[tuple(np.argwhere(weight == 0)[0])] = 1e-9
    paddle.save(state, str(context.artefacts["pdparams"]))
    verify(context)
    assert context.checks["pdparams"]["wrong"] == ["expand.weight"]
    assert describe(context.checks["pdparams"]).startswith("FAILED: 74.9674% zeros")
    with pytest.raises(PipelineError, match=r"^pdparams: 74.9674% zeros .*; tensors differ: expand.weight \(all"):
        fail_on_mismatch(context)


def test_a_layer_below_its_own_target_fails_although_all_layers_together_have_enough_zeros(context):
    context.min_sparsity = {"expand.weight": 0.9, "project.weight": 0.5}
    context.target_ratio = 0.75
    verify(context)
    assert context.checks["pdparams"]["too_dense"] == ["expand.weight"]
    with pytest.raises(
        PipelineError, match=r"^pdparams: 75.0000% zeros .*; below their own targets: expand.weight \(all"
    ):
        fail_on_mismatch(context)
    context.min_sparsity = {"expand.weight": 0.75, "project.weight": 0.75}
    verify(context)
    fail_on_mismatch(context)


def test_as_many_zeros_in_other_positions_fail(context):
    state = {name: value.numpy() for name, value in context.network.state_dict().items()}
    state["expand.weight"] = np.roll(state["expand.weight"], 1)
    paddle.save(state, str(context.artefacts["pdparams"]))
    verify(context)
    assert context.checks["pdparams"]["sparsity"] == 0.75
    assert context.checks["pdparams"]["wrong"] == ["expand.weight"]
    assert not context.checks["pdparams"]["ok"]


def test_a_network_whose_planned_layer_is_not_sparse_fails(context):
    context.network.project.weight.set_value(paddle.rand(context.network.project.weight.shape))
    context.artefacts.clear()
    deploy(context)
    verify(context)
    assert context.checks["pdiparams"]["sparsity"] < 0.75
    assert context.checks["nb"]["sparse_convs"] == 1
    del context.checks["pdiparams"]
    with pytest.raises(PipelineError, match=r"model_sparse.nb: 1 of 2 planned layers run sparse"):
        fail_on_mismatch(context)


def test_missing_weights_fail_and_are_named(context):
    result = check_arrays(context, {})
    assert not result["ok"]
    assert result["wrong"][:2] == ["expand.weight", "project.weight"]
    assert set(result["wrong"]) == set(context.network.state_dict())
