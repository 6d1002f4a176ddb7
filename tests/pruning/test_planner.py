import pytest
from paddle import nn
from paddle.static import InputSpec
from paddle.vision.models import LeNet, mobilenet_v3_small

from paddle_sparse_cb import InputError, make_plan

SPEC = [InputSpec([None, 1, 8, 8], "float32", "x")]


def reasons(plan):
    return {layer.name: layer.reason or "pruned" for layer in plan.layers}


def test_the_plan_names_the_reason_for_every_dense_weight(network):
    assert reasons(make_plan(network, SPEC)) == {
        "stem.0.weight": "3x3 kernel",
        "depthwise.weight": "3x3 kernel",
        "expand.weight": "pruned",
        "squeeze.1.weight": "1x1 output",
        "squeeze.3.weight": "1x1 output",
        "project.weight": "pruned",
        "strided.weight": "stride 2",
        "head.weight": "not a 2D convolution (Linear)",
    }


def test_squeeze_and_excitation_is_recognised_without_a_forward_pass(network):
    assert reasons(make_plan(network)) == reasons(make_plan(network, SPEC))


def test_convolutions_before_the_pooling_of_a_sequential_are_pruned():
    layers = nn.Conv2D(1, 16, 1), nn.Conv2D(16, 8, 1), nn.AdaptiveAvgPool2D(1), nn.Conv2D(8, 4, 1)
    plan = make_plan(nn.Sequential(*layers), prune_params_type="conv1x1_only")
    assert [layer.reason for layer in plan.layers] == ["", "", "1x1 output"]


@pytest.mark.parametrize("spec", [None, SPEC])
def test_squeeze_and_excitation_is_pruned_on_request(network, spec):
    pruned = {layer.name for layer in make_plan(network, spec, prune_squeeze_excite=True).pruned}
    assert pruned == {"expand.weight", "squeeze.1.weight", "squeeze.3.weight", "project.weight"}


def test_the_plan_does_not_depend_on_what_was_built_before():
    def planned():
        return [layer.name for layer in make_plan(mobilenet_v3_small()).pruned]

    first = planned()
    assert len(first) > 20
    assert first == planned()  # though Paddle's own names of the parameters differ, such as conv2d_17.w_0


def test_layers_called_twice_or_never_stay_dense():
    class Shared(nn.Layer):
        def __init__(self):
            super().__init__()
            self.twice, self.once, self.never = (nn.Conv2D(4, 4, 1) for _ in range(3))

        def forward(self, x):
            return self.once(self.twice(self.twice(x)))

    plan = make_plan(Shared(), [InputSpec([1, 4, 8, 8], "float32")])
    assert reasons(plan) == {"twice.weight": "called 2 times", "once.weight": "pruned", "never.weight": "never called"}


def test_frozen_weights_are_not_pruned(network):
    network.expand.weight.stop_gradient = True
    assert reasons(make_plan(network))["expand.weight"] == "frozen"


def test_recurrent_layers_and_embeddings_are_not_pruned():
    network = nn.LayerList([nn.LSTM(4, 4), nn.Embedding(4, 4), nn.Linear(4, 4), nn.Conv1D(4, 4, 3)])
    assert [layer.name for layer in make_plan(network, prune_params_type=None).pruned] == ["2.weight", "3.weight"]


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (nn.Conv2D(4, 4, 1, groups=2), "2 groups"),
        (nn.Conv2D(4, 4, 1, padding=1), "padding [1, 1]"),
        (nn.Conv2D(1, 1, 1), "single weight"),
        (nn.Conv2D(4, 4, 1, data_format="NHWC"), "NHWC layout"),
        (nn.Conv2D(4, 4, 1, stride=(1, 2)), "stride [1, 2]"),
        (nn.Conv2D(4, 4, 1), "pruned"),
    ],
)
def test_convolutions_that_paddle_lite_runs_dense_are_not_pruned(layer, reason):
    assert reasons(make_plan(layer)) == {"weight": reason}


def test_skip_patterns_match_structured_names(network):
    assert reasons(make_plan(network, skip=["exp*"]))["expand.weight"] == "skipped by 'exp*'"
    assert reasons(make_plan(network, skip=["project.weight"]))["project.weight"] == "on the skip list"


def test_a_pattern_that_matches_no_weight_is_an_error(network):
    with pytest.raises(InputError, match=r"skip: the pattern 'conv2d_17\.\*' matches no weight"):
        make_plan(network, skip=["conv2d_17.*"])


def test_skip_params_func_returns_parameter_names_as_in_paddleslim(network):
    names = {parameter.name for name, parameter in network.named_parameters() if name != "expand.weight"}
    assert [layer.name for layer in make_plan(network, skip_params_func=lambda _: names).pruned] == ["expand.weight"]


def test_prune_params_type_none_prunes_all_convolutions_and_linear_layers_except_depthwise(network):
    plan = make_plan(network, prune_params_type=None)
    assert [layer.name for layer in plan.layers if not layer.pruned] == ["depthwise.weight"]


def test_a_plan_without_pruned_layers_is_an_error_that_lists_the_reasons():
    with pytest.raises(InputError) as error:
        make_plan(LeNet()).require_layers()
    assert str(error.value).startswith("no layer left to prune: 3 x not a 2D convolution (Linear), 1 x 3x3 kernel")
    assert "\n" not in str(error.value)


def test_a_weight_of_the_network_itself_is_planned():
    assert reasons(make_plan(nn.Linear(4, 4), prune_params_type=None)) == {"weight": "pruned"}


def test_a_shared_weight_is_planned_once():
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    plan = make_plan(nn.Sequential(first, second), prune_params_type=None)
    assert reasons(plan) == {"0.weight": "pruned"}


def test_an_unknown_prune_params_type_is_an_error():
    with pytest.raises(InputError, match="prune_params_type must be 'conv1x1_only' or None, got 'conv'"):
        make_plan(nn.Linear(2, 2), prune_params_type="conv")


def test_a_string_of_patterns_is_an_error(network):
    with pytest.raises(InputError, match=r"skip must be a sequence of patterns such as \('head\.\*',\), got 'head\."):
        make_plan(network, skip="head.*")


def test_the_plan_is_printed_as_a_table_with_the_cost_of_each_layer(network):
    lines = str(make_plan(network, SPEC)).splitlines()
    assert lines[0].split() == ["weight", "shape", "output", "size", "M", "MACs", "status"]
    rows = [" ".join(line.split()) for line in lines]
    assert "expand.weight 64x16x1x1 8x8 0.07 pruned" in rows
    assert "head.weight 32x10 - 0.00 not a 2D convolution (Linear)" in rows
    macs = {layer.name: layer.macs for layer in make_plan(network, SPEC).layers}
    share = (macs["expand.weight"] + macs["project.weight"]) / sum(macs.values())
    assert lines[-1] == (
        f"2 of 8 weights are pruned: {share:.1%} of {sum(macs.values()) / 1e6:.2f} million "
        "multiply-accumulates become sparse"
    )


def test_without_a_forward_pass_the_table_has_no_sizes_and_no_costs(network):
    lines = str(make_plan(network)).splitlines()
    assert "expand.weight 64x16x1x1 pruned" in [" ".join(line.split()) for line in lines]
    assert lines[-1] == "2 of 8 weights are pruned"
