"""Masks of layers with different ratios and blocks, through the pruner and by themselves."""

import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paddle import nn

from paddle_sparse_cb import GMPPruner, make_plan
from paddle_sparse_cb.pruning.layer_masks import keep_layer_masks, mask_zeros
from paddle_sparse_cb.pruning.masks import count_units, keep_masks_on_device, prune_count
from paddle_sparse_cb.pruning.plan import PlannedLayer

BLOCKS = [(1, 1), (2, 1), (4, 1), (1, 2), (2, 3)]


@st.composite
def layers_with_weights(draw):
    """Planned layers with blocks that divide them, their ratios, and weights without zeros."""
    layers, weights = [], []
    for index in range(draw(st.integers(1, 4))):
        block = draw(st.sampled_from(BLOCKS))
        shape = block[0] * draw(st.integers(1, 4)), block[1] * draw(st.integers(2, 4))
        layers.append(PlannedLayer(str(index), shape, True, ratio=draw(st.floats(0.01, 0.99)), block=block))
        values = np.random.RandomState(draw(st.integers(0, 99))).uniform(0.1, 1, shape)
        weights.append(values.astype("float32") * draw(st.sampled_from([1, 100])))
    return layers, weights


def tensors(weights):
    return [paddle.to_tensor(weight) for weight in weights]


@settings(max_examples=100, deadline=None)
@given(layers_with_weights())
def test_each_layer_has_exactly_its_own_ratio_in_its_own_blocks_on_host_and_device(drawn):
    layers, weights = drawn
    ratios = [layer.ratio for layer in layers]
    kept = [mask.numpy() for mask in keep_layer_masks(layers, tensors(weights), ratios)]
    again = [mask.numpy() for mask in keep_layer_masks(layers, tensors(weights), ratios)]
    for layer, weight, mask, repeated in zip(layers, weights, kept, again):
        rows, columns = layer.block
        units = count_units(layer.shape, layer.block)
        assert (~mask).sum() == min(prune_count(layer.ratio, units), units - 1) * rows * columns
        tiled = mask.reshape(mask.shape[0] // rows, rows, -1, columns)
        assert (tiled.all(axis=(1, 3)) == tiled.any(axis=(1, 3))).all()
        (on_device,) = keep_masks_on_device(tensors([weight]), layer.ratio, layer.block, True)
        np.testing.assert_array_equal(mask, on_device.numpy())
        np.testing.assert_array_equal(mask, repeated)


@settings(max_examples=50, deadline=None)
@given(layers_with_weights(), st.floats(0, 1))
def test_pruned_weights_stay_pruned_while_the_ratios_of_the_layers_rise(drawn, share):
    layers, weights = drawn
    ratios = [layer.ratio for layer in layers]
    first = [mask.numpy() for mask in keep_layer_masks(layers, tensors(weights), [share * ratio for ratio in ratios])]
    trained = [weight[::-1] * mask for weight, mask in zip(weights, first)]
    for before, mask in zip(first, keep_layer_masks(layers, tensors(trained), ratios)):
        assert not (~before & mask.numpy()).any()


def test_one_ranking_leaves_out_layers_with_a_ratio_of_their_own():
    own = PlannedLayer("own", (4, 4), True, ratio=0.5, block=(1, 1))
    layers = [PlannedLayer("a", (4, 4), True, block=(1, 1)), own, PlannedLayer("b", (4, 4), True, block=(1, 1))]
    values = np.arange(1, 17, dtype="float32").reshape(4, 4)
    weights = [values, 1e-3 * values, 100 * values]
    dropped = [~mask.numpy() for mask in keep_layer_masks(layers, tensors(weights), [0.4, 0.5, 0.4], "global")]
    assert [mask.sum() for mask in dropped] == [13, 8, 0]


def test_one_ranking_never_mixes_blocks_of_different_sizes():
    """A block of four has a larger norm than a single weight, so that all single weights would go first."""
    layers = [PlannedLayer("single", (8, 4), True, block=(1, 1)), PlannedLayer("blocks", (8, 4), True, block=(4, 1))]
    weights = [np.random.rand(8, 4).astype("float32") for _ in layers]
    dropped = [~mask.numpy() for mask in keep_layer_masks(layers, tensors(weights), [0.5, 0.5], "global")]
    assert [mask.mean() for mask in dropped] == [0.5, 0.5]


def test_masks_of_zeros_leave_out_layers_without_zeros_and_layers_of_zeros():
    weights = tensors([np.eye(2, dtype="float32"), np.ones((2, 2), "float32"), np.zeros((2, 2), "float32")])
    masks = mask_zeros(weights)
    assert masks.keys() == {weights[0].name}
    assert masks[weights[0].name].numpy().tolist() == [[True, False], [False, True]]


CONFIGS = {
    "stable_iterations": 1,
    "pruning_iterations": 4,
    "tunning_iterations": 1,
    "pruning_steps": 4,
    "initial_ratio": 0.25,
}


def mixed_pruner(network, scope="uniform", configs=None):
    ratios, blocks = {"1.*": 0.9, "2.*": 0.1}, {"1.*": (2, 1)}
    plan = make_plan(network, ratios=ratios, blocks=blocks)
    return GMPPruner(network, ratio=0.75, scope=scope, plan=plan, sparse_block=(4, 1), configs=configs or CONFIGS)


def pointwise_layers():
    return nn.Sequential(nn.Conv2D(16, 40, 1), nn.Conv2D(40, 20, 1), nn.Conv2D(20, 40, 1), nn.Conv2D(40, 10, 1))


@pytest.mark.parametrize("scope", ["uniform", "global"])
def test_every_layer_follows_its_own_schedule_in_training(scope):
    network = pointwise_layers()
    pruner = mixed_pruner(network, scope)
    assert [layer.block for layer in pruner.plan.pruned] == [(4, 1), (2, 1), (4, 1), (1, 1)]
    golden = [
        {0: 0.0, 1: 0.0, 2: 0.0, 3: 0.0},
        {0: 0.25, 1: 0.25, 2: 0.1, 3: 0.25},
        {0: 0.539063, 1: 0.625781, 2: 0.1, 3: 0.539063},
        {0: 0.6875, 1: 0.81875, 2: 0.1, 3: 0.6875},
        {0: 0.742188, 1: 0.889844, 2: 0.1, 3: 0.742188},
        {0: 0.75, 1: 0.9, 2: 0.1, 3: 0.75},
        {0: 0.75, 1: 0.9, 2: 0.1, 3: 0.75},
    ]
    pruned = [np.zeros(layer.weight.shape, bool) for layer in network]
    for step, ratios in enumerate(golden):
        assert pruner.is_at_target == (step > 5)  # step 5 is about to be made
        pruner.step()
        now = [layer.weight.numpy() == 0 for layer in network]
        for index, (layer, mask) in enumerate(zip(pruner.plan.pruned, now)):
            units = count_units(layer.shape, layer.block)
            assert mask.sum() == prune_count(ratios[index], units) * np.prod(layer.block)
            assert not (pruned[index] & ~mask).any()
        pruned = now
        for layer in network:  # the weights that are left are trained
            layer.weight.set_value(layer.weight * (1 + paddle.rand(layer.weight.shape)))
    sparsity = pruner.finalize().ratio
    assert sparsity >= pruner.overall_ratio == pruner.overall_target
    assert sparsity == pytest.approx(pruner.overall_target, abs=0.01)


def test_a_layer_rises_although_the_ratio_of_the_others_stays_the_same():
    network = pointwise_layers()
    pruner = mixed_pruner(network, configs={**CONFIGS, "stable_iterations": 0, "initial_ratio": 0.75})
    zeros = []
    for _ in range(5):
        pruner.step()
        zeros.append([int((layer.weight.numpy() == 0).sum()) for layer in network])
    assert len({counts[0] for counts in zeros}) == 1
    assert [counts[1] for counts in zeros] == [600, 670, 706, 720, 720]
    assert not mixed_pruner(network, configs={**CONFIGS, "initial_ratio": 0.75}).is_at_target


def test_a_plan_without_default_layers_prunes_only_what_has_a_ratio():
    network = pointwise_layers()
    plan = make_plan(network, ratios={"1.*": 0.9})
    GMPPruner(
        network,
        ratio=0.0,
        scope="uniform",
        plan=plan,
        configs={"initial_ratio": 0.0, "pruning_steps": 1, "pruning_iterations": 0},
    ).step()
    assert [float((layer.weight.numpy() == 0).mean()) for layer in network] == [0.0, 0.9, 0.0, 0.0]
