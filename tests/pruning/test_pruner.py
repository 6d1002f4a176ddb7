import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paddle import nn
from paddleslim import GMPUnstructuredPruner

from paddle_sparse_cb import GMPPruner, InputError, make_plan
from paddle_sparse_cb.errors import PipelineError
from paddle_sparse_cb.pruning.masks import prune_count
from paddle_sparse_cb.pruning.optimizer_hook import OptimizerHook

CONFIGS = {
    "stable_iterations": 0,
    "pruning_iterations": 20,
    "tunning_iterations": 20,
    "pruning_steps": 1,
    "initial_ratio": 0.75,
    "resume_iteration": 0,
}


def make_pruner(network, **keywords):
    settings = {
        "ratio": 0.75,
        "prune_params_type": "conv1x1_only",
        "local_sparsity": True,
        "configs": {**CONFIGS, **keywords.pop("configs", {})},
    }
    return GMPPruner(network, **{**settings, **keywords})


def train(network, optimizer, steps=1, method="step"):
    for _ in range(steps):
        loss = network(paddle.rand([4, 1, 8, 8])).square().sum()
        loss.backward()
        getattr(optimizer, method)(*([loss] if method == "minimize" else []))
        optimizer.clear_grad()


def zeros(parameter):
    return int((parameter.numpy() == 0).sum())


def test_it_is_a_paddleslim_gmp_pruner(network):
    assert isinstance(make_pruner(network), GMPUnstructuredPruner)


@pytest.mark.parametrize("ratio", [0.5, 0.6, 0.75, 0.85])
def test_each_layer_has_exactly_its_ratio(network, ratio):
    pruner = make_pruner(network, ratio=ratio, configs={"initial_ratio": ratio})
    pruner.step()
    for weight in (network.expand.weight, network.project.weight):
        assert zeros(weight) == prune_count(ratio, weight.size)


@pytest.mark.parametrize("method", ["step", "minimize"])
@pytest.mark.parametrize("optimizer", ["SGD", "Momentum", "Adam", "AdamW"])
def test_weights_are_zero_right_after_the_optimizer_step(network, method, optimizer):
    optimizer = getattr(paddle.optimizer, optimizer)(0.01, parameters=network.parameters())
    pruner = make_pruner(network)
    pruner.attach(optimizer)
    for step in range(1, 4):
        train(network, optimizer, method=method)
        assert pruner.cur_iteration == step
        assert pruner.sparsity() == 0.75


def test_a_detached_optimizer_has_its_own_methods(network):
    optimizer = paddle.optimizer.SGD(0.01, parameters=network.parameters())
    pruner = make_pruner(network)
    pruner.attach(optimizer)
    pruner.detach(optimizer)
    train(network, optimizer)
    assert pruner.cur_iteration == 0
    assert not {"step", "minimize"} & vars(optimizer).keys()


def test_attaching_a_second_pruner_takes_the_first_one_off(network):
    optimizer = paddle.optimizer.SGD(0.01, parameters=network.parameters())
    first, second = make_pruner(network), make_pruner(network)
    first.attach(optimizer)
    second.attach(optimizer)
    train(network, optimizer)
    assert (first.cur_iteration, second.cur_iteration) == (0, 1)


def test_the_network_keeps_its_keys_and_gets_no_hooks(network):
    before = list(network.state_dict())
    make_pruner(network).step()
    assert list(network.state_dict()) == before
    assert not any(layer._forward_pre_hooks for layer in network.sublayers(include_self=True))


def test_biases_norms_and_unplanned_weights_are_not_touched(network):
    before = {name: value.numpy().copy() for name, value in network.state_dict().items()}
    make_pruner(network).step()
    changed = {name for name, value in network.state_dict().items() if (value.numpy() != before[name]).any()}
    assert changed == {"expand.weight", "project.weight"}


def test_pruned_weights_stay_pruned_while_the_ratio_rises(network):
    optimizer = paddle.optimizer.Momentum(1e-3, parameters=network.parameters())
    pruner = make_pruner(network, configs={"pruning_steps": 10, "initial_ratio": 0.1})
    pruner.attach(optimizer)
    pruned = np.zeros(network.expand.weight.shape, bool)
    ratios = []
    for _ in range(25):
        train(network, optimizer)
        now = network.expand.weight.numpy() == 0
        assert not (pruned & ~now).any()
        pruned = now
        ratios.append(pruner.ratio)
    assert ratios[0] == 0.1
    assert ratios[-1] == 0.75
    assert zeros(network.expand.weight) == 768


def test_nothing_is_pruned_in_the_stable_phase(network):
    optimizer = paddle.optimizer.SGD(0.01, parameters=network.parameters())
    pruner = make_pruner(network, configs={"stable_iterations": 3})
    pruner.attach(optimizer)
    train(network, optimizer, steps=3)
    assert pruner.sparsity() == 0
    train(network, optimizer)
    assert pruner.sparsity() == 0.75


def test_one_ranking_over_all_layers_reaches_the_ratio_together(network):
    network.project.weight.set_value(network.project.weight * 100)
    make_pruner(network, local_sparsity=False).step()
    assert zeros(network.expand.weight) + zeros(network.project.weight) == prune_count(0.75, 1024 + 2048)
    assert zeros(network.expand.weight) == 1023  # nearly all of the small ones, but never a whole layer


def test_erk_leaves_small_layers_denser_and_reaches_the_ratio_together(network):
    pruner = make_pruner(network, scope="erk")
    pruner.step()
    small, large = zeros(network.expand.weight) / 1024, zeros(network.project.weight) / 2048
    assert small < 0.75 < large
    assert pruner.sparsity() == pytest.approx(0.75, abs=1e-3)


@pytest.mark.parametrize("optimizer", ["Momentum", "Adam", "AdamW", "RMSProp", "Adagrad", "Lamb"])
def test_the_moments_of_pruned_weights_are_zero(network, optimizer):
    keywords = {"learning_rate": 0.01, "parameters": network.parameters()}
    optimizer = getattr(paddle.optimizer, optimizer)(**keywords)
    pruner = make_pruner(network)
    pruner.attach(optimizer)
    train(network, optimizer, steps=3)
    dead = network.expand.weight.numpy() == 0
    held = list(pruner.optimizer_tensors(network.expand.weight))
    assert held
    assert dead.mean() == 0.75
    for moment in held:
        assert (moment.numpy()[dead] == 0).all()
    assert any((moment.numpy()[~dead] != 0).any() for moment in held)


def test_the_moments_are_zero_although_the_masks_were_there_first(network):
    make_pruner(network).step()
    optimizer = paddle.optimizer.Momentum(0.01, parameters=network.parameters())
    pruner = make_pruner(network, configs={"stable_iterations": 100})  # its masks are the zeros that are there
    pruner.attach(optimizer)
    pruner.update_params()
    train(network, optimizer, steps=2)
    (velocity,) = pruner.optimizer_tensors(network.expand.weight)
    assert (velocity.numpy()[network.expand.weight.numpy() == 0] == 0).all()


def test_master_weights_of_half_precision_are_zeroed_too():
    """An optimizer with fp32 masters, as AMP O2 makes them on a GPU."""
    layer = nn.Linear(8, 8, bias_attr=False)
    layer.to(dtype="bfloat16")
    optimizer = paddle.optimizer.Momentum(0.1, parameters=layer.parameters(), multi_precision=True)
    optimizer._create_master_weight(layer.weight)
    pruner = make_pruner(layer, prune_params_type=None)
    pruner.attach(optimizer)
    pruner.step()
    master = optimizer._master_weights[layer.weight.name].numpy()
    assert master.dtype == np.float32
    assert (master == 0).mean() == 0.75
    np.testing.assert_array_equal(master == 0, layer.weight.astype("float32").numpy() == 0)


def test_a_step_that_amp_skipped_does_not_count(network):
    optimizer = paddle.optimizer.SGD(0.01, parameters=network.parameters())
    pruner = make_pruner(network)
    pruner.attach(optimizer)
    for overflow, counted in ((False, 1), (True, 1), (False, 2)):
        optimizer._set_auxiliary_var("found_inf", paddle.to_tensor([overflow]))  # as paddle.amp.GradScaler does
        train(network, optimizer)
        assert pruner.cur_iteration == counted


def test_a_weight_may_come_back_only_if_that_is_asked_for():
    def trained(regrow):
        layer = nn.Linear(2, 1, bias_attr=False)
        layer.weight.set_value(paddle.to_tensor([[0.1], [1.0]]))
        optimizer = paddle.optimizer.SGD(0.05, parameters=layer.parameters())
        pruner = make_pruner(
            layer,
            ratio=0.5,
            prune_params_type=None,
            regrow=regrow,
            configs={"pruning_iterations": 2, "pruning_steps": 2, "initial_ratio": 0.4},
        )
        pruner.attach(optimizer)
        pruned = []
        for learning_rate in (0.05, 2.0):  # the gradient drives the first weight up and the second one down
            optimizer.set_lr(learning_rate)
            layer(paddle.to_tensor([[-1.0, 0.3]])).sum().backward()
            optimizer.step()
            optimizer.clear_grad()
            pruned.append((layer.weight.numpy() == 0).ravel().tolist())
        return pruned

    assert trained(regrow=False) == [[True, False], [True, False]]
    assert trained(regrow=True) == [[True, False], [False, True]]


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(["SGD", "Momentum", "Adam", "RMSProp"]),
    st.sampled_from([1e-3, 0.1, 10.0]),
    st.integers(1, 8),
)
def test_an_update_prunes_the_smallest_of_the_kept_weights_whatever_the_optimizer_made_of_the_others(
    seed, name, learning_rate, updates
):
    generator = np.random.default_rng(seed)
    layer = nn.Linear(6, 5, bias_attr=False)
    layer.weight.set_value(generator.standard_normal((6, 5)).astype("float32"))
    optimizer = getattr(paddle.optimizer, name)(learning_rate, parameters=layer.parameters())
    configs = {"pruning_iterations": 8, "pruning_steps": updates, "initial_ratio": 0.2}
    pruner = make_pruner(layer, prune_params_type=None, configs=configs)
    ranked = []
    pruner.attach(optimizer)
    OptimizerHook.of(optimizer).add(lambda: ranked.append(np.abs(layer.weight.numpy())), first=True)
    kept = np.ones((6, 5), bool)
    for _ in range(12):
        gradient = generator.standard_normal((6, 5)) * generator.choice([0, 1, 100])
        (layer.weight * paddle.to_tensor(gradient.astype("float32"))).sum().backward()
        optimizer.step()
        optimizer.clear_grad()
        before, kept = kept, layer.weight.numpy() != 0
        assert not (kept & ~before).any()
        newly_pruned = ranked[-1][before & ~kept]
        assert newly_pruned.size == 0 or newly_pruned.max() <= ranked[-1][kept].min()
    assert (~kept).sum() == prune_count(0.75, kept.size)


def test_paddleslims_own_tests_of_the_dygraph_pruners_hold():
    """What tests/dygraph/test_unstructured_prune.py and _gmp.py of PaddleSlim 2.6.0 ask of a pruner."""
    one_shot = {
        "stable_iterations": 0,
        "pruning_iterations": 0,
        "tunning_iterations": 0,
        "pruning_steps": 1,
        "initial_ratio": 0.55,
    }

    def made(**keywords):
        network = paddle.vision.models.mobilenet_v1(num_classes=10)
        return network, GMPPruner(network, ratio=0.55, configs=keywords.pop("configs", one_shot), **keywords)

    network, pruner = made(local_sparsity=True)
    assert GMPPruner.total_sparse(network) < 0.01
    pruner.step()
    network(paddle.rand([2, 3, 32, 32]))
    after = GMPPruner.total_sparse(network)
    assert abs(after - 0.55) < 0.01
    pruner.update_params()
    assert GMPPruner.total_sparse(network) == after
    largest = max(
        float(parameter.abs().max())
        for layer in network.sublayers()
        if pruner._should_prune_layer(layer)
        for parameter in layer.parameters(include_sublayers=False)
    )
    assert pruner.summarize_weights(network, 1.0) == pytest.approx(largest)

    conv_network, conv_pruner = made(prune_params_type="conv1x1_only", local_sparsity=False)
    assert len(pruner.skip_params) < len(conv_pruner.skip_params)
    conv_pruner.step()
    conv_pruner.update_params()
    assert abs(GMPPruner.total_sparse_conv1x1(conv_network) - 0.55) < 0.01

    block_network, block_pruner = made(local_sparsity=True, sparse_block=[2, 1])
    block_pruner.step()
    block_pruner.update_params()
    assert abs(GMPPruner.total_sparse(block_network) - 0.55) < 0.01

    _, gradual = made(
        configs={
            "stable_iterations": 0,
            "pruning_iterations": 1000,
            "tunning_iterations": 1000,
            "resume_iteration": 500,
            "pruning_steps": 20,
            "initial_ratio": 0.05,
        }
    )
    assert gradual.ratio > 0.3
    gradual.update_masks = gradual.update_params = lambda: None  # the schedule alone, 1,500 steps of it
    ratios = []
    while gradual.ratios_stack:
        gradual.step()
        ratios.append(gradual.ratio)
    assert ratios == sorted(ratios)
    assert ratios[-1] == 0.55


@pytest.mark.parametrize("resumed", [0, 5, 100, 250])
def test_the_ratios_to_come_are_paddleslims(resumed):
    configs = {
        "stable_iterations": 100,
        "pruning_iterations": 100,
        "tunning_iterations": 100,
        "pruning_steps": 5,
        "initial_ratio": 0.1,
        "resume_iteration": resumed,
    }
    slim = GMPUnstructuredPruner.__new__(GMPUnstructuredPruner)
    slim.__dict__.update(configs, target_ratio=0.75, ratio=0.0, cur_iteration=resumed, _need_prune_once=False)
    slim._prepare_training_hyper_parameters()
    assert make_pruner(nn.Conv2D(8, 8, 1), configs=configs).ratios_stack == slim.ratios_stack


@pytest.mark.parametrize("block", [[2, 1], [4, 1], [1, 4], [8, 8]])
def test_blocks_go_as_one(network, block):
    make_pruner(network, sparse_block=block).step()
    weight = network.project.weight.numpy().reshape(32, 64)
    blocks = weight.reshape(32 // block[0], block[0], 64 // block[1], block[1]) == 0
    assert (blocks.all(axis=(1, 3)) == blocks.any(axis=(1, 3))).all()
    assert blocks.all(axis=(1, 3)).mean() == 0.75


def test_the_same_weights_give_the_same_masks(network):
    network.expand.weight.set_value(paddle.ones(network.expand.weight.shape))  # ties everywhere
    first, second = make_pruner(network), make_pruner(network)
    for pruner in (first, second):
        pruner.ratio = 0.75
        pruner.update_masks()
    for name, mask in first.masks.items():
        np.testing.assert_array_equal(mask.numpy(), second.masks[name].numpy())


def test_a_resumed_pruner_goes_on_where_it_was(network):
    pruner = make_pruner(network, configs={"resume_iteration": 30})
    assert pruner.ratio == 0.75
    pruner.step()
    assert pruner.sparsity() == 0.75


def test_a_sparse_network_keeps_its_zeros_at_a_lower_ratio(network):
    make_pruner(network).step()
    make_pruner(network, ratio=0.5, configs={"initial_ratio": 0.5}).step()
    assert zeros(network.expand.weight) == 768


def test_a_layer_of_more_than_a_million_weights_is_exact():
    layer = nn.Linear(1100, 1000, bias_attr=False)
    make_pruner(layer, prune_params_type=None).step()
    assert zeros(layer.weight) == 825_000


def test_finalize_reports_what_is_there(network):
    pruner = make_pruner(network)
    pruner.step()
    report = pruner.finalize()
    assert report.ratio == 0.75
    assert {layer.name for layer in report.layers if layer.pruned} == {"expand.weight", "project.weight"}


def test_a_training_that_diverged_is_an_error_that_says_so(network):
    pruner = make_pruner(network)
    pruner.step()
    network.project.weight.set_value(network.project.weight * float("nan"))
    with pytest.raises(PipelineError, match=r"the training diverged: project.weight is not finite after 1 steps"):
        pruner.finalize()


def test_static_masks_hold_the_zeros_that_are_there(network):
    make_pruner(network).step()
    pruner = make_pruner(network, configs={"stable_iterations": 100})
    assert zeros(network.expand.weight) == 768
    network.expand.weight.set_value(network.expand.weight + 1)
    pruner.step()
    assert zeros(network.expand.weight) == 768


def test_a_layer_too_small_for_the_ratio_is_an_error():
    with pytest.raises(InputError, match=r"ratio 0.75 would zero all 2 weights or blocks of 0.weight"):
        make_pruner(nn.Sequential(nn.Conv2D(2, 1, 1)))


@pytest.mark.parametrize(
    ("keywords", "said"),
    [
        ({"ratio": 75}, "did you mean 0.75?"),
        ({"sparse_block": [0, 1]}, "sparse_block"),
        ({"sparse_block": 2}, "sparse_block must be two whole numbers"),
        ({"configs": {"pruning_steps": 0}}, "pruning_steps"),
        ({"configs": {"prunning": 1}}, "'prunning'"),
        ({"configs": {"resume_iteration": -1}}, "resume_iteration"),
    ],
)
def test_a_bad_value_is_named_in_one_line(network, keywords, said):
    with pytest.raises(InputError) as error:
        make_pruner(network, **keywords)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_plan_of_another_network_is_an_error(network):
    plan = make_plan(nn.Sequential(nn.Conv2D(4, 4, 1)))
    with pytest.raises(InputError, match=r"plan: the network has no weight '0.weight' of shape"):
        make_pruner(network, plan=plan)


def test_total_sparsity_counts_weights_alone(network):
    make_pruner(network).step()
    assert GMPPruner.total_sparse_conv1x1(network) == pytest.approx(2304 / (1024 * 3 + 2048 + 1024))
    assert 0.2 < GMPPruner.total_sparse(network) < 0.4


def test_the_network_can_be_exported_in_the_middle_of_training(network, tmp_path):
    optimizer = paddle.optimizer.SGD(0.01, parameters=network.parameters())
    pruner = make_pruner(network)
    pruner.attach(optimizer)
    train(network, optimizer, steps=2)
    paddle.jit.save(network, str(tmp_path / "model"), [paddle.static.InputSpec([1, 1, 8, 8])])
    train(network, optimizer)
    assert pruner.sparsity() == 0.75
