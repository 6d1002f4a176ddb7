"""The plan predicts which layers Paddle-Lite's optimizer makes sparse."""

import numpy as np
import pytest
from helpers import CORE_ONLY, RECIPES, Chain
from paddle import nn
from paddle.static import InputSpec
from paddle.vision import models

from paddle_sparse_cb import make_plan
from paddle_sparse_cb.deploy.export import export
from paddle_sparse_cb.deploy.lite.nb import count_convolutions
from paddle_sparse_cb.deploy.lite.optimizer import find_optimizer, optimize
from paddle_sparse_cb.detection import config
from paddle_sparse_cb.detection.network import build_network


@pytest.fixture(scope="module")
def optimizer():
    return find_optimizer()


def prune_every_convolution(network):
    """Sets 75% of each convolution's weight to zero, so that a layer's geometry alone decides whether it is sparse."""
    for layer in network.sublayers(include_self=True):
        if isinstance(layer, nn.Conv2D):
            weight = layer.weight.numpy()
            weight.reshape(-1)[np.random.RandomState(0).permutation(weight.size)[: weight.size * 3 // 4]] = 0
            layer.weight.set_value(weight)


def count_sparse(network, spec, folder, optimizer):
    prefix = export(network, folder / "inference" / "model", spec)
    return count_convolutions(optimize(prefix, folder / "sparse.nb", sparse=True, optimizer=optimizer)).sparse


def predict_sparse(plan):
    return sum(not layer.lite_dense_reason for layer in plan.layers)


@pytest.mark.parametrize("output", ["alone", "added", "an output", "chosen"])
@pytest.mark.parametrize("norm", [False, True])
def test_adjacent_convolutions_both_run_sparse_whatever_else_reads_the_first(output, norm, optimizer, tmp_path):
    network, spec = Chain(output, norm), [InputSpec([1, 16, 8, 8], "float32", "x")]
    prune_every_convolution(network)
    assert count_sparse(network, spec, tmp_path, optimizer) == predict_sparse(make_plan(network, spec)) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        lambda: models.mobilenet_v1(scale=0.25),
        lambda: models.mobilenet_v2(scale=0.5),
        models.mobilenet_v3_small,
        models.shufflenet_v2_x0_25,
        models.squeezenet1_1,
        lambda: models.resnet50(width=8),
    ],
    ids=["mobilenet_v1", "mobilenet_v2", "mobilenet_v3", "shufflenet_v2", "squeezenet", "resnet"],
)
def test_as_many_layers_run_sparse_as_the_plan_predicts(make, optimizer, tmp_path):
    network, spec = make(), [InputSpec([1, 3, 64, 64], "float32", "x")]
    prune_every_convolution(network)
    assert count_sparse(network, spec, tmp_path, optimizer) == predict_sparse(make_plan(network, spec)) >= 3


@pytest.mark.slow
@pytest.mark.skipif(CORE_ONLY, reason="needs PaddleDetection")
@pytest.mark.parametrize("base", ["picodet_s_lcnet.yml", "picodet_m_esnet.yml"])
def test_as_many_layers_of_picodet_run_sparse_as_the_plan_predicts(base, optimizer, tmp_path):
    content = {**config.read_with_bases(RECIPES / "_base_" / base), "num_classes": 80}
    network = build_network(config.load(content, base))
    prune_every_convolution(network)
    plan = make_plan(
        network, [InputSpec([1, 3, 256, 256], "float32"), InputSpec([1, 2], "float32"), InputSpec([1, 1], "int64")]
    )
    with network.export_mode(256, 256) as (detector, specs):
        assert count_sparse(detector, specs, tmp_path, optimizer) == predict_sparse(plan) > 50
