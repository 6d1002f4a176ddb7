import pytest
from helpers import Pointwise, classifier, conv
from paddle import nn
from paddle.static import InputSpec

from paddle_sparse_cb import HookContext, InputError, SparsityCallback, make_plan, measure_sparsity
from paddle_sparse_cb.deploy import ConvertMNN, isolated
from paddle_sparse_cb.deploy.mnn.constraints import check_block, check_runs_sparse, find_dense_layers
from paddle_sparse_cb.errors import PipelineError

SPEC = [InputSpec([1, 1, 8, 8], "float32", "x")]


def test_zeros_count_in_whole_blocks_of_the_kernel():
    plan = make_plan(conv(8, 8), blocks={"weight": (4, 1)})
    assert not find_dense_layers(plan, {"weight": 0.5}, 4)
    assert find_dense_layers(plan, {"weight": 0.9}, 8) == {
        "weight": "its zeros are in blocks of 4 output channels, and only blocks of 8 count"
    }


def test_more_than_the_threshold_is_needed():
    plan = make_plan(conv(10, 10))
    for ratio, block, is_dense in ((0.6, 1, True), (0.601, 1, False), (0.3, 4, True), (0.31, 4, False), (0.5, 2, True)):
        assert bool(find_dense_layers(plan, {"weight": ratio}, block)) == is_dense
    with pytest.raises(
        InputError,
        match=r"^MNN would keep weight dense: it may end with as few as 50.00% zeros, and runs sparse above 60%; skip",
    ):
        check_runs_sparse(plan, {"weight": 0.5})


def test_layers_that_only_paddle_lite_keeps_dense_run_sparse_in_mnn():
    plan = make_plan(Pointwise(), SPEC, prune_params_type=None)
    reasons = {layer.name: (layer.lite_dense_reason, layer.mnn_dense_reason) for layer in plan.layers}
    assert reasons["stem.0.weight"] == ("3x3 kernel", "")
    assert reasons["strided.weight"] == ("stride 2", "")
    assert reasons["head.weight"] == ("not a 2D convolution (Linear)", "")
    assert reasons["depthwise.weight"] == ("3x3 kernel", "depthwise")
    assert reasons["expand.weight"] == ("", "")


def test_transposed_convolutions_and_layers_that_are_not_called_are_dense_in_mnn():
    class Network(nn.Layer):
        def __init__(self):
            super().__init__()
            self.up, self.unused = nn.Conv2DTranspose(1, 4, 2), conv(4, 4)

        def forward(self, x):
            return self.up(x)

    plan = make_plan(Network(), SPEC, prune_params_type=None)
    dense = find_dense_layers(plan, {layer.name: 0.9 for layer in plan.pruned})
    assert dense == {
        "up.weight": "not a convolution or linear layer that MNN runs sparse (Conv2DTranspose)",
        "unused.weight": "never called",
    }
    with pytest.raises(InputError, match=r"MNN would keep up.weight dense: .* \(and 1 more of 2 planned layers\)"):
        check_runs_sparse(plan, {})


def test_a_plan_that_mnn_would_run_dense_is_refused_before_the_training(first_digits, tmp_path):
    model = classifier(Pointwise())
    before = model.network.expand.weight.numpy()
    sparsity = SparsityCallback(
        ratio=0.59, pruning_epochs=1, tunning_epochs=0, pruning_steps=1, save_dir=tmp_path, post_train=[ConvertMNN()]
    )
    with pytest.raises(InputError, match=r"MNN would keep expand.weight dense: it may end with as few as 59.08"):
        model.fit(first_digits, epochs=2, batch_size=16, verbose=0, callbacks=[sparsity])
    assert (model.network.expand.weight.numpy() == before).all()


def test_a_missing_package_is_found_before_the_training(monkeypatch):
    monkeypatch.setattr(isolated, "find_spec", lambda name: None)
    with pytest.raises(PipelineError, match="is not installed"):
        ConvertMNN().before_training(make_plan(conv(8, 8)), {"weight": 0.9})


def test_the_hook_needs_an_exported_model(network, tmp_path):
    plan = make_plan(network, SPEC)
    context = HookContext(network, tmp_path, plan, measure_sparsity(network, plan), 0.75)
    with pytest.raises(InputError, match="there is no artefact 'inference': call the hook Export before ConvertMNN"):
        ConvertMNN()(context)


def test_other_blocks_than_mnns_are_refused():
    assert [check_block(block) for block in (1, 2, 4, 8)] == [1, 2, 4, 8]
    for block in (0, 3, 5, 16, True, 4.0, "4", None, [4, 1]):
        with pytest.raises(InputError, match=r"MNN's block must be one of 1, 2, 4, 8 output channels, got"):
            ConvertMNN(block)
