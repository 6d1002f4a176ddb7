import types

import pytest
from paddle import nn

from paddle_sparse_cb.utils.layers import eval_mode, keep_forwards, named_weights


def test_each_layer_is_back_in_its_own_mode_after_an_evaluation_even_if_it_raises(network):
    network.bn.eval()
    with pytest.raises(ZeroDivisionError), eval_mode(network):
        assert not any(layer.training for layer in network.sublayers(include_self=True))
        raise ZeroDivisionError
    assert network.training
    assert network.expand.training
    assert not network.bn.training


def test_each_layer_has_its_own_forward_again_after_a_trace_even_if_it_raises(network):
    """Translated forwards compute the same, in three times the time."""
    network.bn.forward = own = types.MethodType(nn.BatchNorm2D.forward, network.bn)
    with pytest.raises(ZeroDivisionError), keep_forwards(network):
        for layer in (network, network.bn, network.expand):  # as Paddle 2.6 does
            layer._original_funcs["forward"] = type(layer).forward
            layer.forward = types.MethodType(type(layer).forward, layer)
        raise ZeroDivisionError
    layers = dict(network.named_sublayers(include_self=True))
    assert {name for name, layer in layers.items() if "forward" in vars(layer)} == {"bn"}
    assert network.bn.forward is own
    assert not any(layer._original_funcs for layer in layers.values())


def test_weights_are_the_parameters_of_two_or_more_dimensions_with_their_layers(network):
    found = {name: (layer, weight) for name, layer, weight in named_weights(network)}
    assert found["squeeze.1.weight"] == (network.squeeze[1], network.squeeze[1].weight)
    assert found.keys() == {name for name, parameter in network.named_parameters() if len(parameter.shape) > 1}


def test_a_shared_weight_is_yielded_once_under_its_first_name():
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    assert [name for name, _, _ in named_weights(nn.Sequential(first, second))] == ["0.weight"]


def test_a_weight_of_the_network_itself_has_a_name_without_a_dot():
    assert [name for name, _, _ in named_weights(nn.Linear(4, 4))] == ["weight"]
