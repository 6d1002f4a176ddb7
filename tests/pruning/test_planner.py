import paddle
import pytest
from paddle import nn
from paddle.static import InputSpec
from paddle.vision.models import LeNet, mobilenet_v3_small

from paddle_sparse_cb import InputError, make_plan

SPEC = [InputSpec([None, 1, 8, 8], "float32", "x")]


def reasons(plan):
    return {layer.name: layer.reason or "pruned" for layer in plan.layers}


def test_the_plan_says_for_every_weight_why(network):
    assert reasons(make_plan(network, SPEC)) == {
        "stem.0.weight": "3x3 kernel",
        "depthwise.weight": "3x3 kernel",
        "expand.weight": "pruned",
        "squeeze.1.weight": "on a 1x1 map",
        "squeeze.3.weight": "on a 1x1 map",
        "project.weight": "pruned",
        "strided.weight": "stride 2",
        "head.weight": "no 2D convolution (Linear)",
    }


def test_squeeze_and_excitation_is_told_without_a_forward(network):
    assert reasons(make_plan(network)) == reasons(make_plan(network, SPEC))


def test_what_comes_before_a_sequences_pooling_is_no_squeeze():
    layers = nn.Conv2D(1, 16, 1), nn.Conv2D(16, 8, 1), nn.AdaptiveAvgPool2D(1), nn.Conv2D(8, 4, 1)
    plan = make_plan(nn.Sequential(*layers), prune_params_type="conv1x1_only")
    assert [layer.reason for layer in plan.layers] == ["", "", "on a 1x1 map"]


@pytest.mark.parametrize("spec", [None, SPEC])
def test_squeeze_and_excitation_is_planned_where_asked_for(network, spec):
    pruned = {layer.name for layer in make_plan(network, spec, prune_squeeze_excite=True).pruned}
    assert pruned == {"expand.weight", "squeeze.1.weight", "squeeze.3.weight", "project.weight"}


def test_names_that_depend_on_what_was_built_before_play_no_part():
    def planned():
        return [layer.name for layer in make_plan(mobilenet_v3_small()).pruned]

    first = planned()
    assert first == planned()
    assert len(first) > 20
    assert not any("conv2d_" in name or "fc" in name for name in first)


def test_layers_called_twice_or_never_are_left_dense():
    class Shared(nn.Layer):
        def __init__(self):
            super().__init__()
            self.twice, self.once, self.never = (nn.Conv2D(4, 4, 1) for _ in range(3))

        def forward(self, x):
            return self.once(self.twice(self.twice(x)))

    plan = make_plan(Shared(), [InputSpec([1, 4, 8, 8], "float32")])
    assert reasons(plan) == {"twice.weight": "called 2 times", "once.weight": "pruned", "never.weight": "never called"}


def test_frozen_weights_stay_as_they_are(network):
    network.expand.weight.stop_gradient = True
    assert reasons(make_plan(network))["expand.weight"] == "frozen"


def test_only_convolutions_and_linear_layers_count_as_such():
    network = nn.LayerList([nn.LSTM(4, 4), nn.Embedding(4, 4), nn.Linear(4, 4), nn.Conv1D(4, 4, 3)])
    assert [layer.name for layer in make_plan(network, prune_params_type=None).pruned] == ["2.weight", "3.weight"]


def test_a_convolution_that_is_called_by_keyword_is_traced():
    class Keyword(nn.Layer):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2D(4, 4, 1)

        def forward(self, x):
            return self.conv(x=x)

    assert reasons(make_plan(Keyword(), [InputSpec([1, 4, 8, 8], "float32")])) == {"conv.weight": "pruned"}


@pytest.mark.parametrize(("layer", "reason"), [
    (nn.Conv2D(4, 4, 1, groups=2), "2 groups"),
    (nn.Conv2D(4, 4, 1, padding=1), "padding [1, 1]"),
    (nn.Conv2D(1, 1, 1), "a single weight"), (nn.Conv2D(4, 4, 1, data_format="NHWC"), "NHWC layout"),
    (nn.Conv2D(4, 4, 1, stride=(1, 2)), "stride [1, 2]"),
    (nn.Conv2D(4, 4, 1), "pruned"),
])
def test_geometry_rules_out_what_paddle_lite_keeps_dense(layer, reason):
    assert reasons(make_plan(layer)) == {"weight": reason}


def test_skip_patterns_are_structured_names(network):
    assert reasons(make_plan(network, skip=["exp*"]))["expand.weight"] == "skipped by 'exp*'"
    assert reasons(make_plan(network, skip=["project.weight"]))["project.weight"] == "on the skip list"


def test_a_pattern_that_matches_nothing_is_an_error(network):
    with pytest.raises(InputError, match=r"skip: the pattern 'conv2d_17\.\*' matches no weight"):
        make_plan(network, skip=["conv2d_17.*"])


def test_skip_params_func_is_paddleslims(network):
    names = {parameter.name for name, parameter in network.named_parameters() if name != "expand.weight"}
    assert [layer.name for layer in make_plan(network, skip_params_func=lambda _: names).pruned] == ["expand.weight"]


def test_all_convolutions_and_linear_layers_but_depthwise(network):
    plan = make_plan(network, prune_params_type=None)
    assert [layer.name for layer in plan.layers if not layer.pruned] == ["depthwise.weight"]


def test_nothing_left_to_prune_says_what_there_was():
    with pytest.raises(InputError) as error:
        make_plan(LeNet()).require_layers()
    assert str(error.value).startswith("no layer left to prune: 3 x no 2D convolution (Linear), 1 x 3x3 kernel")
    assert "\n" not in str(error.value)


def test_planning_leaves_the_network_as_it_was(network):
    network.bn.eval()
    before = {name: value.numpy().copy() for name, value in network.state_dict().items()}
    make_plan(network, SPEC)
    assert network.training
    assert not network.bn.training
    assert all((value.numpy() == before[name]).all() for name, value in network.state_dict().items())
    assert not network.expand._forward_post_hooks


def test_a_parameter_of_the_root_layer_is_planned():
    assert reasons(make_plan(nn.Linear(4, 4), prune_params_type=None)) == {"weight": "pruned"}


def test_a_tied_weight_is_planned_once():
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    plan = make_plan(nn.Sequential(first, second), prune_params_type=None)
    assert reasons(plan) == {"0.weight": "pruned"}


def test_an_unknown_type_is_an_error():
    with pytest.raises(InputError, match="prune_params_type is 'conv1x1_only' or None, got 'conv'"):
        make_plan(paddle.nn.Linear(2, 2), prune_params_type="conv")
