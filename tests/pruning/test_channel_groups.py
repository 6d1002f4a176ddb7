"""Which channels may be permuted: those that are found are, and those that may not keep their order."""

import numpy as np
import paddle
import pytest
from helpers import conv
from paddle import nn
from paddle.static import InputSpec
from paddle.vision.models import mobilenet_v2, mobilenet_v3_small, resnet18, shufflenet_v2_x0_25

from paddle_sparse_cb import InputError
from paddle_sparse_cb.pruning.channel_groups import find_channel_groups

SPEC = [InputSpec([1, 8, 6, 6], "float32", "x")]


def randomize(network):
    """Gives every parameter and running statistic other values for each channel."""
    for name, tensor in network.state_dict().items():
        low, high = (0.5, 1.5) if "variance" in name or len(tensor.shape) == 1 else (-0.3, 0.3)
        tensor.set_value(paddle.uniform(tensor.shape, tensor.dtype, low, high))


def permute_at_random(network, groups):
    tensors = {tensor.name: tensor for tensor in network.state_dict().values()}
    for group in groups:
        order = np.random.permutation(group.size)
        for one in group.slices:
            values = tensors[one.name].numpy()
            index = np.arange(values.shape[one.axis])
            index[one.start : one.start + group.size] = one.start + order
            tensors[one.name].set_value(np.take(values, index, one.axis))


def permuted_rows(network, groups):
    """Returns the structured names of the weights whose rows belong to a group."""
    names = {tensor.name: name for name, tensor in network.named_parameters()}
    rows = {one.name for group in groups for one in group.slices if one.axis == 0}
    return {names[name].removesuffix(".weight") for name in rows if names.get(name, "").endswith("weight")}


def run(network, *inputs):
    network.eval()
    return network(*inputs).numpy()


def assert_any_order_gives_the_same_outputs(network, spec, groups):
    image = paddle.rand(spec[0].shape)
    before = run(network, image)
    weights = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    permute_at_random(network, groups)
    assert any((tensor.numpy() != weights[name]).any() for name, tensor in network.state_dict().items())
    np.testing.assert_allclose(run(network, image), before, rtol=1e-3, atol=1e-4 * np.abs(before).max())


@pytest.mark.parametrize(
    ("build", "free"),
    [
        (mobilenet_v2, 51),  # all 52 convolutions but the last, which is flattened
        (mobilenet_v3_small, 51),
        (resnet18, 17),
        (shufflenet_v2_x0_25, 34),
    ],
)
def test_the_channels_of_networks_can_be_permuted_in_any_order(build, free):
    network, spec = build(num_classes=5), [InputSpec([1, 3, 32, 32], "float32", "x")]
    randomize(network)
    groups = find_channel_groups(network, spec)
    convolutions = [layer.weight for layer in network.sublayers() if isinstance(layer, nn.Conv2D)]
    rows = {one.name for group in groups for one in group.slices if one.axis == 0}
    assert sum(weight.name in rows for weight in convolutions) == free
    assert_any_order_gives_the_same_outputs(network, spec, groups)


class Net(nn.Layer):
    """A network with layers by name and a forward pass that is given."""

    def __init__(self, forward, **layers):
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.compute = forward

    def forward(self, x):
        return self.compute(self, x)


def shuffled(net, x):
    y = net.a(x).reshape([1, 2, 4, 6, 6]).transpose([0, 2, 1, 3, 4]).reshape([1, 8, 6, 6])
    return net.last(net.b(y))


CASES = {
    "a chain with a depthwise convolution": (
        lambda net, x: net.last(net.dw(net.norm(net.a(x)))),
        {"a": nn.Conv2D(8, 12, 1), "norm": nn.BatchNorm2D(12), "dw": conv(12, 12, 3, groups=12)},
        {"a", "dw", "norm"},
    ),
    "an addition": (lambda net, x: net.last(net.a(x) + net.b(x)), {"a": conv(8, 12), "b": conv(8, 12)}, {"a", "b"}),
    "an addition to the input": (lambda net, x: net.last(net.a(x) + x), {"a": conv(8, 8)}, set()),
    "channels put together": (
        lambda net, x: net.last(paddle.concat([net.a(x), net.b(x), net.a(x)], axis=1)),
        {"a": conv(8, 4), "b": conv(8, 4)},
        {"a", "b"},
    ),
    "halves that are whole groups": (
        lambda net, x: net.last(
            paddle.concat(paddle.split(paddle.concat([net.a(x), net.b(x)], axis=1), 2, axis=1)[::-1], axis=1)
        ),
        {"a": conv(8, 6), "b": conv(8, 6)},
        {"a", "b"},
    ),
    "a group that is divided": (
        lambda net, x: net.last(paddle.concat(paddle.split(net.a(x), 2, axis=1)[::-1], axis=1)),
        {"a": conv(8, 12)},
        set(),
    ),
    "different divisions that are added": (
        lambda net, x: net.last(paddle.concat([net.a(x), net.b(x)], axis=1) + net.c(x)),
        {"a": conv(8, 6), "b": conv(8, 6), "c": conv(8, 12)},
        set(),
    ),
    "one map for all channels": (
        lambda net, x: net.last(net.a(x) * nn.functional.sigmoid(net.b(x))),
        {"a": conv(8, 12), "b": nn.Conv2D(8, 1, 1)},
        {"a"},
    ),
    "a convolution that is called twice": (
        lambda net, x: net.last(net.b(net.b(net.a(x)))),
        {"a": conv(8, 12), "b": conv(12, 12)},
        {"a", "b"},
    ),
    "a scale for each channel": (
        lambda net, x: net.last(net.a(x) * net.scale),
        {"a": conv(8, 12), "scale": paddle.create_parameter([1, 12, 1, 1], "float32")},
        {"a"},
    ),
    "groups of channels": (
        lambda net, x: net.last(net.b(net.a(x))),
        {"a": conv(8, 12), "b": conv(12, 12, groups=3)},
        set(),
    ),
    "a shuffle": (shuffled, {"a": conv(8, 8), "b": conv(8, 12)}, {"b"}),
    "group normalization": (
        lambda net, x: net.last(net.norm(net.a(x))),
        {"a": conv(8, 12), "norm": nn.GroupNorm(4, 12)},
        set(),
    ),
    "local response normalization": (
        lambda net, x: net.last(nn.functional.local_response_norm(net.a(x), 3)),
        {"a": conv(8, 12)},
        set(),
    ),
    "a linear layer behind the channels": (
        lambda net, x: net.head(net.last(net.a(x)).mean(axis=[2, 3])),
        {"a": conv(8, 12), "head": nn.Linear(12, 3)},
        {"a"},
    ),
    "a weight that is read in another way": (
        lambda net, x: net.last(net.a(x)) * net.a.weight.sum(axis=[1, 2, 3]).reshape([1, 12, 1, 1]),
        {"a": conv(8, 12)},
        set(),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_channels_are_permuted_together_or_not_at_all(case):
    forward, layers, expected = CASES[case]
    network = Net(forward, **layers, last=conv(8 if "input" in case else 12, 12))
    randomize(network)
    groups = find_channel_groups(network, SPEC)
    assert permuted_rows(network, groups) - {"norm"} == expected - {"norm"}
    if expected:
        assert_any_order_gives_the_same_outputs(network, SPEC, groups)


def test_other_layouts_keep_their_order():
    network = nn.Sequential(nn.Conv2D(8, 12, 1, data_format="NHWC"), nn.Conv2D(12, 4, 1, data_format="NHWC"))
    assert find_channel_groups(network, [InputSpec([1, 6, 6, 8], "float32", "x")]) == []


def test_channels_that_a_branch_of_the_program_reads_keep_their_order():
    network = Net(
        lambda net, x: paddle.static.nn.cond(x.sum() > 0, lambda: net.last(net.a(x)), lambda: net.a(x)[:, :12]),
        a=conv(8, 12),
        last=conv(12, 12),
    )
    assert find_channel_groups(network, SPEC) == []


def test_a_parameter_that_the_forward_pass_does_not_use_is_an_error():
    network = Net(lambda net, x: net.last(net.a(x)), a=conv(8, 12), last=conv(12, 12), auxiliary=conv(12, 3))
    with pytest.raises(InputError, match=r"the forward pass does not use auxiliary\.weight"):
        find_channel_groups(network, SPEC)


def test_tracing_changes_neither_the_mode_nor_the_names_of_later_layers():
    network = nn.Sequential(conv(8, 12), conv(12, 4))
    with paddle.utils.unique_name.guard():
        expected = [nn.Conv2D(2, 2, 1).weight.name for _ in range(2)]
    with paddle.utils.unique_name.guard():
        first = nn.Conv2D(2, 2, 1).weight.name
        find_channel_groups(network, SPEC)
        assert [first, nn.Conv2D(2, 2, 1).weight.name] == expected
    assert network.training


def test_the_network_keeps_its_forwards(network):
    """Paddle 2.6 leaves translated ones, with which a training step takes three times as long."""
    outer = nn.Sequential(network)
    find_channel_groups(outer, [InputSpec([1, 1, 8, 8], "float32")])
    assert not any("forward" in vars(layer) for layer in outer.sublayers(include_self=True))
