"""FP16 files beside the FP32 ones, and kernels for pairs of output channels."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from helpers import Pointwise
from paddle.static import InputSpec

from paddle_sparse_cb import GMPPruner, HookContext, PipelineError, PrunePlan, make_plan, measure_sparsity
from paddle_sparse_cb.deploy import Export, OptimizeLite, fail_on_mismatch, print_verification, verify
from paddle_sparse_cb.deploy.lite.nb import read_nb
from paddle_sparse_cb.hooks import call_hooks

SPEC = [InputSpec([1, 1, 8, 8], "float32", "x")]
FP16 = OptimizeLite({"enable_fp16": "true"})


def prune(network, output, block=(1, 1)):
    plan = make_plan(network, SPEC)
    configs = {"initial_ratio": 0.75, "pruning_steps": 1}
    GMPPruner(network, ratio=0.75, local_sparsity=True, plan=plan, configs=configs, sparse_block=block).step()
    return HookContext(network, output, plan, measure_sparsity(network, plan), 0.75)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A network in blocks of two output channels, deployed in FP32 and FP16."""
    context = prune(Pointwise(), tmp_path_factory.mktemp("fp16"), block=(2, 1))
    call_hooks([Export(SPEC), FP16], context)
    return context


@pytest.fixture
def deployed(original, tmp_path):
    """A copy of it, whose files a test may change."""
    output = shutil.copytree(original.output, tmp_path / "copy")
    artefacts = {name: output / path.relative_to(original.output) for name, path in original.artefacts.items()}
    return replace(original, output=output, artefacts=artefacts, checks={})


def check(context):
    """Verifies without the manifest, which every change of a file would spoil."""
    verify(context)
    context.checks.pop("manifest")
    fail_on_mismatch(context)


def test_fp16_files_are_made_beside_the_others_and_pass(deployed):
    verify(deployed)
    fail_on_mismatch(deployed)
    names = [f"model_{kind}{suffix}.nb" for kind in ("dense", "sparse") for suffix in ("", "_fp16")]
    assert sorted(path.name for path in deployed.output.glob("*.nb")) == sorted(names)
    for name, precision in (("nb", "FP32"), ("nb_fp16", "FP16")):
        result = deployed.checks[name]
        assert (result["precision"], result["sparse_convs"], result["planned"]) == (precision, 2, 2)
        assert result["compared"] == result["tensors"] == 16


def test_only_the_fp16_files_compute_in_fp16_and_all_hold_fp32_weights(deployed):
    for name, path in deployed.artefacts.items():
        if name.startswith("nb"):
            model = read_nb(path)
            assert {one.precision for one in model.convolutions.values()} == {"FP16" if "fp16" in name else "FP32"}
            assert {str(array.dtype) for array in model.parameters.values()} <= {"float32", "int32"}


def test_kernels_for_pairs_of_channels_are_listed_and_counted(deployed, capsys):
    verify(deployed)
    blocks = {layer["name"]: layer["block"] for layer in deployed.checks["nb_fp16"]["layers"]}
    assert {name for name, block in blocks.items() if block == [2, 1]} == {"expand.weight", "project.weight"}
    assert {tuple(block) for block in blocks.values() if block} == {(2, 1)}
    print_verification(deployed)
    lines = capsys.readouterr().out.splitlines()
    assert next(line for line in lines if line.startswith("project.weight")).count("sparse 2x1") == 2
    assert next(line for line in lines if line.startswith("nb_fp16: ")).startswith(
        "nb_fp16: ok: 2 of 2 planned layers run sparse; 2 of 7 convolutions (2 in pairs of output channels); "
    )


@pytest.mark.parametrize(("source", "target", "number"), [("", "_fp16", 1), ("_fp16", "", 5)])
def test_a_file_of_the_other_precision_fails(deployed, source, target, number):
    for kind in ("dense", "sparse"):
        shutil.copy(deployed.output / f"model_{kind}{source}.nb", deployed.output / f"model_{kind}{target}.nb")
    with pytest.raises(
        PipelineError,
        match=rf"model_sparse{target}.nb: 2 of 2 .* model_dense{target}.nb: stem.0.weight has the kernel conv2d/def/4/"
        rf"{number}/1, expected {'FP16' if target else 'FP32'}; .* and \d+ more",
    ):
        check(deployed)


def test_a_kernel_for_single_channels_fails_where_the_zeros_allow_pairs(tmp_path):
    """Such a file is made from a weight with too many half pairs, whose non-zeros are then overwritten by zeros."""
    network = Pointwise()
    context = prune(network, tmp_path)
    weight = np.zeros(network.expand.weight.shape, "float32")
    weight[:, :2] = 1.0
    weight[::2, 2:4] = 7.0
    network.expand.weight.set_value(weight)
    for hook in (Export(SPEC), OptimizeLite()):
        hook(context)
    check(context)
    for path in (context.artefacts["nb_dense"], context.artefacts["nb_sparse"]):
        path.write_bytes(path.read_bytes().replace(np.float32(7).tobytes(), bytes(4)))
    with pytest.raises(PipelineError, match="expand.weight has its zeros in pairs of output channels and a kernel for"):
        check(context)


@pytest.mark.parametrize(("name", "reported"), [("expand.weight",) * 2, ("expand.bias", "conv2d_2.b_0")])
def test_a_value_that_is_infinite_in_fp16_fails(network, name, reported, tmp_path):
    context = prune(network, tmp_path)
    tensor = network.state_dict()[name]
    array = tensor.numpy()
    array.reshape(-1)[np.abs(array).argmax()] = -70_000
    tensor.set_value(array)
    call_hooks([Export(SPEC), FP16, verify], context)
    assert context.checks["nb"]["ok"]
    with pytest.raises(PipelineError, match=f"_fp16.nb: {reported} has a value beyond 65,504, the range of FP16"):
        fail_on_mismatch(context)


def test_fp16_files_are_removed_when_the_option_is_off(deployed):
    own = deployed.output / "model_mine_fp16.nb"
    own.write_bytes(b"not made by this package")
    OptimizeLite()(deployed)
    deployed.artefacts = {name: path for name, path in deployed.artefacts.items() if "fp16" not in name}
    verify(deployed)
    fail_on_mismatch(deployed)
    assert own.exists()
    assert not (deployed.output / "model_sparse_fp16.nb").exists()


def test_a_dense_plan_gets_a_dense_fp16_file(network, tmp_path):
    plan = PrunePlan(())
    context = HookContext(network, tmp_path, plan, measure_sparsity(network, plan), 0.0)
    call_hooks([Export(SPEC), FP16, verify], context)
    fail_on_mismatch(context)
    assert sorted(path.name for path in tmp_path.glob("*.nb")) == ["model_dense.nb", "model_dense_fp16.nb"]
    assert read_nb(tmp_path / "model_dense.nb").convolutions["conv2d_0.w_0"].precision == "FP32"
