import numpy as np
import paddle
import pytest
from paddle import nn
from paddle.static import InputSpec

from paddle_sparse_cb import InputError, make_plan
from paddle_sparse_cb.deploy.export import export
from paddle_sparse_cb.deploy.lite.constraints import (
    check_options,
    check_runs_sparse,
    check_sparse,
    find_dense_layers,
    runs_paired,
)
from paddle_sparse_cb.deploy.lite.nb import count_convolutions, read_nb
from paddle_sparse_cb.deploy.lite.optimizer import OptimizeLite, find_optimizer, optimize
from paddle_sparse_cb.deploy.program import read_program
from paddle_sparse_cb.pruning.min_sparsity import min_sparsity
from paddle_sparse_cb.utils.legacy_programs import legacy_program_format

SPEC = [InputSpec([1, 3, 8, 8], "float32", "x")]
DIGITS = [InputSpec([1, 1, 8, 8], "float32", "x")]


class Shared(nn.Layer):
    """A 1x1 convolution that is called twice."""

    def __init__(self, ratio):
        super().__init__()
        self.stem = nn.Conv2D(3, 20, 3, padding=1)
        self.shared = nn.Conv2D(20, 20, 1)
        zero_first(self.shared.weight, ratio)

    def forward(self, x):
        x = nn.functional.relu(self.shared(self.stem(x)))
        return nn.functional.relu(self.shared(x))


def zero_first(weight, ratio):
    """Sets the first elements of a weight to zero, a fraction `ratio` of them."""
    array = weight.numpy().reshape(-1)
    array[: round(ratio * array.size)] = 0
    weight.set_value(array.reshape(weight.shape))


@pytest.mark.parametrize(
    ("rules", "ratio", "scope", "message"),
    [
        (
            {},
            0.59,
            "uniform",
            "expand.weight dense: it may end with as few as 59.08% zeros, and runs sparse from 60% "
            r"\(and 1 more of 2 planned layers\)",
        ),
        ({}, 0.75, "global", "expand.weight dense: it may end with as few as 0.00% zeros"),
        (
            {"prune_params_type": None},
            0.75,
            "uniform",
            "stem.0.weight dense: 3x3 kernel "
            r"\(and 2 more of 7 planned layers\)",
        ),
        ({"skip_params_func": lambda network: set()}, 0.75, "uniform", "stem.0.weight dense: 3x3 kernel"),
    ],
)
def test_a_planned_layer_that_would_run_dense_is_refused_before_training(network, rules, ratio, scope, message):
    plan = make_plan(network, DIGITS, **rules)
    with pytest.raises(InputError, match=f"Paddle-Lite would keep {message}"):
        OptimizeLite().before_training(plan, min_sparsity(plan, ratio, scope))


def test_a_plan_that_runs_sparse_is_accepted(network):
    plan = make_plan(network, DIGITS)
    least = min_sparsity(plan, 0.6)
    assert find_dense_layers(plan, least) == {}
    check_runs_sparse(plan, least)


def test_a_shared_sparse_convolution_is_refused_because_the_optimizer_crashes(tmp_path):
    prefix = export(Shared(0.6), tmp_path / "model", SPEC)
    with pytest.raises(InputError, match=r"shared.weight is called 2 times and is 60% zeros: .* crashes"):
        optimize(prefix, tmp_path / "model.nb", sparse=True)
    done = find_optimizer().run(
        f"--model_file={prefix}.pdmodel",
        f"--param_file={prefix}.pdiparams",
        f"--optimize_out={tmp_path / 'model'}",
        "--valid_targets=arm",
        "--sparse_model=true",
    )
    assert done.returncode < 0


def test_a_shared_convolution_below_the_threshold_stays_dense(tmp_path):
    prefix = export(Shared(0.5), tmp_path / "model", SPEC)
    count = count_convolutions(optimize(prefix, tmp_path / "model.nb", sparse=True))
    assert (count.total, count.sparse) == (3, 0)


def test_a_layer_of_zeros_is_refused_by_name(tmp_path):
    network = nn.Sequential(nn.Conv2D(3, 8, 3), nn.ReLU(), nn.Conv2D(8, 8, 1), nn.ReLU())
    zero_first(network[2].weight, 1.0)
    prefix = export(network, tmp_path / "model", SPEC)
    with pytest.raises(InputError, match=r"model.pdmodel: 2.weight is all zeros: Paddle-Lite cannot load"):
        optimize(prefix, tmp_path / "model.nb", sparse=True)
    assert not (tmp_path / "model.nb").exists()
    optimize(prefix, tmp_path / "model.nb", sparse=False)


@pytest.mark.parametrize("shape", [[1, 3, None, None], [None, 3, 8, 8], [2, 3, 8, 8]])
def test_the_inputs_of_a_model_exported_elsewhere_are_checked_too(shape, tmp_path):
    network = nn.Sequential(nn.Conv2D(3, 8, 3), nn.ReLU())
    network.eval()
    with legacy_program_format():
        paddle.jit.save(network, str(tmp_path / "model"), [InputSpec(shape, "float32", "x")])
    with pytest.raises(InputError, match=r"model.pdmodel: input 'x' has shape .* must be fixed and the batch size 1"):
        check_sparse(tmp_path / "model")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"enable_fp16": "True"}, "enable_fp16 must be true or false, got 'True'"),
        ({"enable_fp16": "1"}, "enable_fp16 must be true or false, got '1'"),
        ({"quant_model": "true"}, "would stay FP32"),
        ({"valid_targets": "arm,x86"}, "the single target 'arm' only"),
        ({"valid_targets": "x86"}, "the single target 'arm' only"),
        ({"valid_targets": "arm,opencl"}, "the single target 'arm' only"),
        ({"sparse_model": "True"}, "sparse_model is set by this package"),
        ({"sparse_modle": "true"}, "is unknown; known: enable_fp16, quant_model, quant_type, valid_targets"),
    ],
)
def test_an_option_that_is_incompatible_with_a_sparse_model_is_refused(options, message, tmp_path):
    with pytest.raises(InputError, match=message):
        optimize(tmp_path / "model", tmp_path / "model.nb", sparse=True, options=options)


class Branches(nn.Layer):
    """1x1 convolutions of the same input with the given weights."""

    def __init__(self, weights):
        super().__init__()
        self.stem = nn.Conv2D(3, weights[0].shape[1], 3)
        self.branches = nn.LayerList(nn.Conv2D(weight.shape[1], len(weight), 1) for weight in weights)
        for branch, weight in zip(self.branches, weights):
            branch.weight.set_value(weight)

    def forward(self, x):
        x = nn.functional.relu(self.stem(x))
        return [nn.functional.relu(branch(x)) for branch in self.branches]


def test_the_kernel_for_pairs_of_channels_is_predicted(tmp_path):
    """The share of whole pairs varies around Paddle-Lite's limit, 80%: 90% of what that kernel processes."""
    whole = [200, 100, 159, 160, 161, 0]  # of 200 pairs that are not zero
    weights = []
    for rows in (64, 65):
        for count in whole:
            weight = np.zeros((rows, 20, 1, 1), "float32")
            weight[0:20:2] = 1.0
            weight[1:20:2] = (np.arange(200) < count).reshape(10, 20, 1, 1)
            weight[64:, :5] = 1.0
            weights.append(weight)
    prefix = export(Branches(weights), tmp_path / "model", SPEC)
    model = read_nb(optimize(prefix, tmp_path / "model.nb", sparse=True))
    expected = [(2, 1) if count >= 160 else (1, 1) for count in whole * 2]
    found = {name: model.convolutions[one.variable].block for name, one in read_program(prefix).convolutions.items()}
    assert [found[f"branches.{index}.weight"] for index in range(len(weights))] == expected
    assert [runs_paired(weight) for weight in weights] == [block == (2, 1) for block in expected]


def test_compatible_options_are_accepted():
    check_options({"enable_fp16": "true"}, sparse=True)
    check_options({"enable_fp16": "false", "quant_model": "false", "valid_targets": "arm"}, sparse=True)
    check_options({"enable_fp16": "true", "quant_model": "true", "quant_type": "QUANT_INT8"}, sparse=False)


def test_fp16_without_an_arm_target_is_refused_because_it_would_be_ignored():
    with pytest.raises(InputError, match="enable_fp16=true needs 'arm' in valid_targets, got 'x86,opencl'"):
        check_options({"enable_fp16": "true", "valid_targets": "x86,opencl"}, sparse=False)
    check_options({"enable_fp16": "true", "valid_targets": "arm,opencl"}, sparse=False)


def test_options_reach_the_optimizer(tmp_path):
    prefix = export(nn.Sequential(nn.Conv2D(3, 64, 3), nn.ReLU()), tmp_path / "model", SPEC)
    plain = optimize(prefix, tmp_path / "plain.nb", sparse=False).stat().st_size
    options = {"quant_model": "true", "quant_type": "QUANT_INT8"}
    assert optimize(prefix, tmp_path / "small.nb", sparse=False, options=options).stat().st_size < plain - 64 * 27 * 2


@pytest.mark.parametrize("value", ["arm --optimize_out=/etc/x", "arm;ls", "../x", ""])
def test_the_value_of_an_option_cannot_smuggle_in_another_option(value):
    with pytest.raises(InputError, match="Paddle-Lite's option valid_targets must be a word"):
        check_options({"valid_targets": value}, sparse=False)
    check_options({"valid_targets": "arm,opencl"}, sparse=False)
