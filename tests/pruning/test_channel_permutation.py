import numpy as np
import paddle
import pytest
from helpers import conv
from paddle import nn
from paddle.static import InputSpec

from paddle_sparse_cb import GMPPruner, PipelineError, make_plan, permute_channels
from paddle_sparse_cb.pruning import channel_permutation
from paddle_sparse_cb.pruning.channel_groups import find_channel_groups

SPEC = [InputSpec([1, 16, 6, 6], "float32", "x")]


def pair():
    return nn.Sequential(conv(16, 32), nn.BatchNorm2D(32), nn.ReLU(), conv(32, 8))


def weights(network):
    return {name: tensor.numpy() for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize("height", [2, 4, 8])
def test_channels_with_equal_patterns_are_brought_together(height):
    network = pair()
    patterns = np.random.rand(32 // height, 16) < 0.25
    patterns[:, 0] = True
    shuffled = np.random.permutation(np.repeat(patterns, height, axis=0))
    magnitudes = np.where(shuffled, 1.0, 0.01)
    network[0].weight.set_value(magnitudes[..., None, None].astype("float32"))
    first, last = permute_channels(network, make_plan(network), SPEC, 0.7, (height, 1))
    assert first.after > first.before + 0.1
    units = np.sort((patterns * height).ravel())  # the best order: patterns that are equal form the blocks
    kept = units[-round(0.3 * units.size) :].sum() / magnitudes.sum()
    assert first.after > 0.95 * kept
    assert last.after == last.before  # its rows are the outputs of the network


@pytest.mark.parametrize("ratio", [0.75, 0.85])
def test_the_magnitude_that_is_kept_is_the_pruners_and_the_outputs_stay_the_same(ratio):
    network = pair()
    image = paddle.rand([1, 16, 6, 6])
    network.eval()
    outputs = network(image).numpy()
    before = float(np.abs(network[0].weight.numpy()).sum())
    first, _ = permute_channels(network, make_plan(network), SPEC, ratio, (4, 1))
    np.testing.assert_allclose(network(image).numpy(), outputs, rtol=1e-4, atol=1e-5)
    configs = {"initial_ratio": ratio, "pruning_steps": 1}
    GMPPruner(
        network, ratio=ratio, local_sparsity=True, sparse_block=(4, 1), plan=make_plan(network), configs=configs
    ).step()
    assert np.abs(network[0].weight.numpy()).sum() / before == pytest.approx(first.after, rel=1e-5)


def test_the_same_weights_are_permuted_in_the_same_way():
    networks = pair(), pair()
    networks[1].set_state_dict(networks[0].state_dict())
    for network in networks:
        permute_channels(network, make_plan(network), SPEC, 0.75, (4, 1))
    for first, second in zip(weights(networks[0]).values(), weights(networks[1]).values()):
        np.testing.assert_array_equal(first, second)


def test_layers_that_are_added_are_permuted_together():
    class Sum(nn.Layer):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.last = conv(16, 32), conv(16, 32), conv(32, 8)

        def forward(self, x):
            return self.last(self.a(x) + self.b(x))

    network = Sum()
    plan = make_plan(network, ratios={"b.*": 0.9}, blocks={"b.*": (2, 1)})
    kept = {one.name: one for one in permute_channels(network, plan, SPEC, 0.75, (4, 1))}
    assert sum(one.after - one.before for one in kept.values()) > 0.01
    assert kept.keys() == {"a.weight", "b.weight", "last.weight"}


def test_single_weights_and_blocks_of_columns_are_left_as_they_are():
    network = pair()
    before = weights(network)
    assert permute_channels(network, make_plan(network), SPEC, 0.75) == []
    assert permute_channels(network, make_plan(network), SPEC, 0.75, (1, 4)) == []
    assert all((before[name] == value).all() for name, value in weights(network).items())


def test_a_sparse_layer_that_loses_nothing_is_left_as_it_is():
    network = pair()
    network[0].weight.set_value(np.repeat(np.eye(8, 16, dtype="float32"), 4, axis=0)[..., None, None])
    first, _ = permute_channels(network, make_plan(network), SPEC, 0.75, (4, 1))
    assert first.before == first.after == 1


def test_outputs_that_would_change_are_an_error_and_the_network_stays_as_it_was(monkeypatch):
    def without_the_next_layer(network, spec):
        groups = find_channel_groups(network, spec)
        return [
            channel_permutation.ChannelGroup(one.size, tuple(part for part in one.slices if part.axis == 0))
            for one in groups
        ]

    network = pair()
    before = weights(network)
    monkeypatch.setattr(channel_permutation, "find_channel_groups", without_the_next_layer)
    with pytest.raises(PipelineError, match="permuting the channels changed the outputs of the network"):
        permute_channels(network, make_plan(network), SPEC, 0.75, (4, 1))
    for name, value in weights(network).items():
        np.testing.assert_array_equal(value, before[name])


def test_inputs_and_outputs_may_be_in_dicts_and_lists():
    class Dicts(nn.Layer):
        def __init__(self):
            super().__init__()
            self.a, self.last = conv(16, 32), conv(32, 8)

        def forward(self, inputs):
            return {"maps": [self.last(self.a(inputs["image"])), inputs["image"] / inputs["scale"]]}

    network = Dicts()
    spec = [{"image": SPEC[0], "scale": InputSpec([1], "float32", "scale"), "unused": None}]
    first, _ = permute_channels(network, make_plan(network), spec, 0.75, (4, 1))
    assert first.after > first.before
