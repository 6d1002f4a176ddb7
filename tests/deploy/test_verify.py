import numpy as np
import paddle
import pytest
from paddle.static import InputSpec

from paddle_sparse_cb import GMPPruner, HookContext, make_plan, measure_sparsity
from paddle_sparse_cb.deploy.export import Export
from paddle_sparse_cb.deploy.lite import OptimizeLite
from paddle_sparse_cb.deploy.verify import check_arrays, require, verify
from paddle_sparse_cb.errors import StepError

SPEC = [InputSpec([1, 1, 8, 8], "float32", "x")]


@pytest.fixture
def context(network, tmp_path):
    plan = make_plan(network, SPEC)
    GMPPruner(network, ratio=0.75, local_sparsity=True, plan=plan,
              configs={"initial_ratio": 0.75, "pruning_steps": 1}).step()
    paddle.save(network.state_dict(), str(tmp_path / "final.pdparams"))
    made = HookContext(network, tmp_path, plan, measure_sparsity(network, plan), 0.75)
    made.artefacts["pdparams"] = tmp_path / "final.pdparams"
    return made


def test_zeros_are_found_in_every_file(context):
    for hook in (Export(SPEC), OptimizeLite(), verify, require):
        hook(context)
    assert set(context.checks) == {"pdparams", "pdiparams", "nb"}
    assert context.checks["pdparams"]["sparsity"] == context.checks["pdiparams"]["sparsity"] == 0.75
    assert context.checks["nb"]["sparse_convs"] == context.checks["nb"]["planned"] == 2


def test_a_checkpoint_with_one_zero_too_few_does_not_pass(context):
    network = context.network
    state = {name: value.numpy() for name, value in network.state_dict().items()}
    weight = state["expand.weight"]
    weight[tuple(np.argwhere(weight == 0)[0])] = 1e-9
    paddle.save(state, str(context.artefacts["pdparams"]))
    verify(context)
    assert context.checks["pdparams"]["wrong"] == ["expand.weight"]
    with pytest.raises(StepError, match=r"pdparams: 74.9674% zeros .* other weights than .* in expand.weight"):
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
    with pytest.raises(StepError, match=r"model_sparse.nb: 1 of 2 planned layers run sparse"):
        require(context)


def test_a_missing_weight_does_not_pass(context):
    result = check_arrays(context, {})
    assert not result["ok"]
    assert result["wrong"] == ["expand.weight", "project.weight"]
