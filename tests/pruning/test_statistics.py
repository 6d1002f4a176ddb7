import json

import numpy as np
import paddle
import pytest

from paddle_sparse_cb import InputError, make_plan, measure_sparsity


def zero_half(parameter):
    values = parameter.numpy()
    values.reshape(-1)[: values.size // 2] = 0
    parameter.set_value(values)


def test_pruned_weights_and_all_weights_have_separate_ratios(network):
    zero_half(network.expand.weight)
    zero_half(network.project.weight)
    report = measure_sparsity(network, make_plan(network))
    assert report.ratio == 0.5
    numel = sum(int(np.prod(p.shape)) for p in network.parameters() if len(p.shape) > 1)
    zeros = (network.expand.weight.size + network.project.weight.size) // 2
    assert report.total_ratio == zeros / numel


def test_biases_and_batch_norms_are_not_counted(network):
    names = {layer.name for layer in measure_sparsity(network).layers}
    assert names == {name for name, p in network.named_parameters() if len(p.shape) > 1}
    assert measure_sparsity(network).ratio == 0  # although every bias is zero


def test_without_a_plan_every_weight_counts_as_pruned():
    linear = paddle.nn.Linear(4, 4)
    zero_half(linear.weight)
    report = measure_sparsity(linear)
    assert report.ratio == report.total_ratio == 0.5


def test_the_report_is_printed_as_a_table_and_saved_as_json(network):
    report = measure_sparsity(network, make_plan(network))
    rows = [" ".join(line.split()) for line in str(report).splitlines()]
    assert rows[0] == "weight shape zeros sparsity status"
    assert "expand.weight 64x16x1x1 0 0.00% pruned" in rows
    assert "strided.weight 32x32x1x1 0 0.00% stride 2" in rows
    assert rows[-1] == "pruned weights 0.00% zeros, all weights 0.00%"
    layers = json.loads(json.dumps(report.to_dict()))["layers"]
    assert layers[2] == {
        "name": "expand.weight",
        "shape": [64, 16, 1, 1],
        "zeros": 0,
        "numel": 1024,
        "pruned": True,
        "reason": "",
    }


def test_a_plan_of_another_network_is_an_error(network):
    with pytest.raises(InputError, match=r"plan: the network has no weight 'stem.0.weight' of shape"):
        measure_sparsity(paddle.nn.Linear(4, 4), make_plan(network))


def test_the_sparsity_of_a_network_without_weights_is_zero():
    report = measure_sparsity(paddle.nn.ReLU())
    assert (report.layers, report.ratio, report.total_ratio) == ((), 0, 0)


def test_a_tiny_weight_is_not_counted_as_zero():
    linear = paddle.nn.Linear(2, 2)
    linear.weight.set_value(paddle.to_tensor([[1e-9, 0.0], [1e-44, -0.0]]))
    assert measure_sparsity(linear).layers[0].zeros == 2  # -0.0 is one; Paddle's == would count four
