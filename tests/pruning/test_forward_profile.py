import paddle
import pytest
from helpers import conv
from paddle import nn
from paddle.jit.dy2static.program_translator import ProgramTranslator
from paddle.static import InputSpec
from paddle.vision.models import mobilenet_v1, mobilenet_v2, mobilenet_v3_small

from paddle_sparse_cb import make_plan

SPEC = [InputSpec([1, 16, 8, 8], "float32")]


@pytest.mark.parametrize(("network", "millions"), [(mobilenet_v1, 569), (mobilenet_v2, 300), (mobilenet_v3_small, 56)])
def test_multiply_accumulates_are_those_of_the_papers(network, millions):
    """Howard et al. 2017, table 4; Sandler et al. 2018, table 4; Howard et al. 2019, table 3."""
    plan = make_plan(network(), [InputSpec([1, 3, 224, 224], "float32")])
    assert sum(layer.macs for layer in plan.layers) / 1e6 == pytest.approx(millions, rel=0.02)


@pytest.mark.parametrize(
    ("layer", "shape", "output_sizes", "macs"),
    [
        (nn.Conv2D(4, 6, 3, stride=2, padding=1), [1, 4, 9, 8], ((5, 4),), 5 * 4 * 4 * 6 * 9),
        (nn.Conv2D(4, 6, 3, groups=2, data_format="NHWC"), [1, 9, 8, 4], ((7, 6),), 7 * 6 * 2 * 6 * 9),
        (nn.Conv2DTranspose(4, 6, 2, stride=2), [1, 4, 5, 3], ((10, 6),), 5 * 3 * 4 * 6 * 4),
        (nn.Conv1D(4, 6, 3), [5, 4, 9], ((7,),), 7 * 4 * 6 * 3),
        (nn.Linear(4, 6), [1, 4], ((),), 24),
        (nn.Linear(4, 6), [None, 7, 4], ((7,),), 7 * 24),
    ],
)
def test_output_sizes_and_multiply_accumulates_of_one_image(layer, shape, output_sizes, macs):
    planned = make_plan(layer, [InputSpec(shape, "float32")]).layers[0]
    assert (planned.output_sizes, planned.macs) == (output_sizes, macs)


def test_a_layer_called_with_several_sizes_lists_each_size_once():
    class Pyramid(nn.Layer):
        def __init__(self):
            super().__init__()
            self.head = conv(16, 4)

        def forward(self, x):
            return [self.head(x), self.head(nn.functional.max_pool2d(x, 2)), self.head(x)]

    layer = make_plan(Pyramid(), SPEC).layers[0]
    assert (layer.reason, layer.output_sizes) == ("called 3 times", ((8, 8), (4, 4)))
    assert layer.macs == (64 + 16 + 64) * 64
    assert "8x8, 4x4" in str(make_plan(Pyramid(), SPEC))


def test_a_layer_that_is_called_with_keywords_is_recorded():
    class Keyword(nn.Layer):
        def __init__(self):
            super().__init__()
            self.conv = conv(16, 4)

        def forward(self, x):
            return self.conv(x=x)

    assert [layer.output_sizes for layer in make_plan(Keyword(), SPEC).layers] == [((8, 8),)]


@pytest.mark.parametrize("full_graph", [False, True])
def test_a_network_wrapped_by_to_static_is_recorded_and_compiled_again_afterwards(full_graph):
    class Mean(nn.Layer):
        def __init__(self):
            super().__init__()
            self.conv, self.head = conv(16, 4), nn.Linear(4, 2)

        def forward(self, x):
            return self.head(self.conv(x).mean(axis=[2, 3]))

    network = paddle.jit.to_static(Mean(), full_graph=full_graph)
    assert [layer.output_sizes for layer in make_plan(network, SPEC).layers] == [((8, 8),), ((),)]
    assert ProgramTranslator().enable_to_static


def test_profiling_leaves_the_network_as_it_was(network):
    network.bn.eval()
    network.expand.weight.stop_gradient = True
    before = {name: value.numpy().copy() for name, value in network.state_dict().items()}
    make_plan(network, [InputSpec([1, 1, 8, 8], "float32")])
    assert network.training
    assert not network.bn.training
    assert network.expand.weight.stop_gradient
    assert all((value.numpy() == before[name]).all() for name, value in network.state_dict().items())
    assert not [hook for layer in network.sublayers(include_self=True) for hook in layer._forward_post_hooks.values()]


def test_the_hooks_are_removed_if_the_network_raises(network):
    with pytest.raises(ValueError, match="channel"):
        make_plan(network, [InputSpec([1, 3, 8, 8], "float32")])
    assert network.training
    assert not [hook for layer in network.sublayers(include_self=True) for hook in layer._forward_post_hooks.values()]


def test_integer_inputs_are_valid_indices_and_float_inputs_can_be_divided_by():
    class Scaled(nn.Layer):
        def __init__(self):
            super().__init__()
            self.table, self.conv = nn.Embedding(1, 16), conv(16, 4)

        def forward(self, index, scale, image):
            quotient = image * self.table(index).reshape([1, 16, 1, 1]) / scale
            assert bool(paddle.isfinite(quotient).all())
            return self.conv(quotient)

    spec = [InputSpec([1], "int64"), InputSpec([1], "float32"), *SPEC]
    assert {layer.name for layer in make_plan(Scaled(), spec).pruned} == {"conv.weight"}
