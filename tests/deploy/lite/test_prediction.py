"""What the plan says of a network, against what Paddle-Lite's optimizer makes of it."""

import numpy as np
import pytest
from helpers import PADDLE3, RECIPES, Chain
from paddle import nn
from paddle.static import InputSpec
from paddle.vision import models

from paddle_sparse_cb import make_plan
from paddle_sparse_cb.deploy.export import export
from paddle_sparse_cb.deploy.lite import optimizer as lite
from paddle_sparse_cb.detection import config
from paddle_sparse_cb.detection.network import build_network


@pytest.fixture(scope="module")
def optimizer():
    return lite.find_optimizer()


def prune_everything(network):
    """75% zeros in every convolution, so that nothing but Paddle-Lite decides what runs sparse."""
    for layer in network.sublayers(include_self=True):
        if isinstance(layer, nn.Conv2D):
            weight = layer.weight.numpy()
            weight.reshape(-1)[np.random.RandomState(0).permutation(weight.size)[:weight.size * 3 // 4]] = 0
            layer.weight.set_value(weight)


def sparse_in_lite(network, spec, folder, optimizer):
    prefix = export(network, folder / "inference" / "model", spec)
    return lite.count_convolutions(lite.optimize(prefix, folder / "sparse.nb", sparse=True, optimizer=optimizer)).sparse


def predicted(plan):
    return sum(not layer.lite_dense_reason for layer in plan.layers)


@pytest.mark.parametrize("how", ["alone", "added", "an output", "chosen"])
@pytest.mark.parametrize("norm", [False, True])
def test_neighbours_run_sparse_whoever_else_reads_the_first(how, norm, optimizer, tmp_path):
    network, spec = Chain(how, norm), [InputSpec([1, 16, 8, 8], "float32", "x")]
    prune_everything(network)
    assert sparse_in_lite(network, spec, tmp_path, optimizer) == predicted(make_plan(network, spec)) == 2


@pytest.mark.slow
@pytest.mark.parametrize("make", [lambda: models.mobilenet_v1(scale=0.25), lambda: models.mobilenet_v2(scale=0.5),
                                  models.mobilenet_v3_small, models.shufflenet_v2_x0_25, models.squeezenet1_1,
                                  lambda: models.resnet50(width=8)])
def test_as_many_layers_run_sparse_as_the_plan_says(make, optimizer, tmp_path):
    network, spec = make(), [InputSpec([1, 3, 64, 64], "float32", "x")]
    prune_everything(network)
    plan = make_plan(network, spec)
    assert sparse_in_lite(network, spec, tmp_path, optimizer) == predicted(plan) >= 3


@pytest.mark.slow
@pytest.mark.skipif(PADDLE3, reason="ppdet is for Paddle 2.6")
@pytest.mark.parametrize("base", ["picodet_s_lcnet.yml", "picodet_m_esnet.yml"])
def test_as_many_layers_of_picodet_run_sparse_as_the_plan_says(base, optimizer, tmp_path):
    content = {**config.read_with_bases(RECIPES / "_base_" / base), "num_classes": 80}
    network = build_network(config.load(content, base))
    prune_everything(network)
    plan = make_plan(network, [InputSpec([1, 3, 256, 256], "float32"), InputSpec([1, 2], "float32"),
                               InputSpec([1, 1], "int64")])
    with network.export_mode(256, 256) as (detector, specs):
        assert sparse_in_lite(detector, specs, tmp_path, optimizer) == predicted(plan) > 50
