import pytest
from helpers import conv
from paddle import nn
from paddle.static import InputSpec
from paddle.vision.models import mobilenet_v1, mobilenet_v2, mobilenet_v3_small

from paddle_sparse_cb import make_plan

SPEC = [InputSpec([1, 16, 8, 8], "float32")]


def reasons(network, spec=SPEC):
    return {layer.name: layer.reason or "pruned" for layer in make_plan(network, spec).layers}


@pytest.mark.parametrize(("network", "millions"), [(mobilenet_v1, 569), (mobilenet_v2, 300), (mobilenet_v3_small, 56)])
def test_multiply_accumulates_are_those_of_the_papers(network, millions):
    """Howard et al. 2017, table 4; Sandler et al. 2018, table 4; Howard et al. 2019, table 3."""
    plan = make_plan(network(), [InputSpec([1, 3, 224, 224], "float32")])
    assert sum(layer.macs for layer in plan.layers) / 1e6 == pytest.approx(millions, rel=0.02)


@pytest.mark.parametrize(("layer", "shape", "maps", "macs"), [
    (nn.Conv2D(4, 6, 3, stride=2, padding=1), [1, 4, 9, 8], ((5, 4),), 5 * 4 * 4 * 6 * 9),
    (nn.Conv2D(4, 6, 3, groups=2, data_format="NHWC"), [1, 9, 8, 4], ((7, 6),), 7 * 6 * 2 * 6 * 9),
    (nn.Conv2DTranspose(4, 6, 2, stride=2), [1, 4, 5, 3], ((10, 6),), 5 * 3 * 4 * 6 * 4),
    (nn.Conv1D(4, 6, 3), [5, 4, 9], ((7,),), 7 * 4 * 6 * 3),
    (nn.Linear(4, 6), [1, 4], ((),), 24), (nn.Linear(4, 6), [None, 7, 4], ((7,),), 7 * 24),
])
def test_maps_and_multiply_accumulates_of_one_image(layer, shape, maps, macs):
    planned = make_plan(layer, [InputSpec(shape, "float32")]).layers[0]
    assert (planned.maps, planned.macs) == (maps, macs)


def test_each_size_of_a_layer_called_on_several_is_shown():
    class Pyramid(nn.Layer):
        def __init__(self):
            super().__init__()
            self.head = conv(16, 4)

        def forward(self, x):
            return [self.head(x), self.head(nn.functional.max_pool2d(x, 2)), self.head(x)]

    layer = make_plan(Pyramid(), SPEC).layers[0]
    assert (layer.reason, layer.maps, layer.macs) == ("called 3 times", ((8, 8), (4, 4)), (64 + 16 + 64) * 64)
    assert "8x8, 4x4" in str(make_plan(Pyramid(), SPEC))


def test_looking_leaves_the_network_as_it_was(network):
    network.bn.eval()
    network.expand.weight.stop_gradient = True
    before = {name: value.numpy().copy() for name, value in network.state_dict().items()}
    make_plan(network, [InputSpec([1, 1, 8, 8], "float32")])
    assert network.training
    assert not network.bn.training
    assert network.expand.weight.stop_gradient
    assert all((value.numpy() == before[name]).all() for name, value in network.state_dict().items())
    assert not [hook for layer in network.sublayers(include_self=True) for hook in layer._forward_post_hooks.values()]


def test_an_index_and_a_scale_are_inputs_that_work():
    class Scaled(nn.Layer):
        def __init__(self):
            super().__init__()
            self.table, self.conv = nn.Embedding(1, 16), conv(16, 4)

        def forward(self, index, scale, image):
            return self.conv(image * self.table(index).reshape([1, 16, 1, 1]) / scale)

    spec = [InputSpec([1], "int64"), InputSpec([1], "float32"), *SPEC]
    assert reasons(Scaled(), spec)["conv.weight"] == "pruned"
