"""The parameters of a `.nb` file are those of the exported model, with the batch norms folded in."""

import numpy as np
import paddle
import pytest
from paddle import nn
from paddle.static import InputSpec
from paddle.vision import models

from paddle_sparse_cb.deploy.export import export
from paddle_sparse_cb.deploy.lite.folding import fold_parameters
from paddle_sparse_cb.deploy.lite.nb import read_nb
from paddle_sparse_cb.deploy.lite.optimizer import optimize


class Mixed(nn.Layer):
    """Norms in every place: behind convolutions with and without bias, transposed and grouped ones, and others."""

    def __init__(self):
        super().__init__()
        self.biased = nn.Sequential(nn.Conv2D(3, 8, 3), nn.BatchNorm2D(8), nn.ReLU())
        self.up = nn.Sequential(nn.Conv2DTranspose(8, 8, 2, stride=2), nn.BatchNorm2D(8))
        self.plain = nn.Sequential(nn.Conv2D(8, 8, 1, bias_attr=False), nn.BatchNorm2D(8), nn.ReLU(), nn.BatchNorm2D(8))
        self.norms = nn.Sequential(nn.GroupNorm(2, 8), nn.InstanceNorm2D(8))
        self.grouped = nn.Sequential(nn.Conv2D(8, 16, 3, groups=4, bias_attr=False), nn.BatchNorm2D(16), nn.PReLU(16))
        self.head = nn.Sequential(nn.Linear(16, 4), nn.LayerNorm(4), nn.BatchNorm1D(4), nn.Linear(4, 8))

    def forward(self, x):
        x = self.grouped(self.norms(self.plain(self.up(self.biased(x)))))
        return self.head(x.mean([2, 3]))


def randomize_norms(network):
    for layer in network.sublayers():
        if hasattr(layer, "_variance"):
            layer._mean.set_value(paddle.randn(layer._mean.shape))
            layer._variance.set_value(paddle.rand(layer._variance.shape) + 0.5)
            layer.weight.set_value(paddle.randn(layer.weight.shape))
            layer.bias.set_value(paddle.randn(layer.bias.shape))


@pytest.fixture(
    params=[Mixed, models.mobilenet_v2, models.mobilenet_v3_small, models.resnet18, models.shufflenet_v2_x1_0],
    ids=lambda make: make.__name__,
)
def optimized(request, tmp_path):
    """The prefix of an exported network and its optimized model."""
    network = request.param()
    randomize_norms(network)
    prefix = export(network, tmp_path / "model", [InputSpec([1, 3, 64, 64], "float32", "x")])
    return prefix, read_nb(optimize(prefix, tmp_path / "model.nb", sparse=False))


def test_every_parameter_is_known_and_matches(optimized):
    prefix, model = optimized
    expected = fold_parameters(prefix)
    assert model.parameters
    assert [name for name, array in model.parameters.items() if not expected[name].matches(array)] == []


def test_a_changed_value_of_any_parameter_is_found(optimized):
    prefix, model = optimized
    expected = fold_parameters(prefix)
    for name, array in model.parameters.items():
        position = int(np.argmax(np.abs(array)))
        for change in (lambda value: -value, lambda value: value * 1.001, lambda value: value * np.nan):
            changed = array.copy().reshape(-1)
            changed[position] = change(changed[position])
            assert array.reshape(-1)[position] == 0 or not expected[name].matches(changed), name
