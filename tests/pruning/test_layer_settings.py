import pytest
from paddle import nn

from paddle_sparse_cb import InputError, PrunePlan, make_plan
from paddle_sparse_cb.pruning.config import PruningConfig
from paddle_sparse_cb.pruning.layer_settings import set_default_block
from paddle_sparse_cb.pruning.plan import PlannedLayer


def layer_values(plan):
    return {layer.name: (layer.ratio, layer.block) for layer in plan.pruned}


def sequence(*channels):
    return nn.Sequential(*[nn.Conv2D(inputs, outputs, 1) for inputs, outputs in zip(channels, channels[1:])])


def test_patterns_give_single_layers_a_ratio_and_a_block():
    plan = make_plan(sequence(8, 8, 16, 8), ratios={"1.*": 0.9}, blocks={"[01].weight": [4, 1]})
    assert layer_values(plan) == {"0.weight": (None, (4, 1)), "1.weight": (0.9, (4, 1)), "2.weight": (None, None)}


def test_the_last_pattern_that_matches_decides():
    plan = make_plan(
        sequence(8, 8, 8, 8), ratios={"*": 0.8, "1.weight": 0.9, "[12].*": 0.7}, blocks={"*": (2, 1), "0.*": (1, 1)}
    )
    assert layer_values(plan) == {
        "0.weight": (0.8, (1, 1)),
        "1.weight": (0.7, (2, 1)),
        "2.weight": (0.7, (2, 1)),
    }


def test_a_ratio_of_0_leaves_a_layer_dense():
    layer = make_plan(sequence(8, 8, 8), ratios={"0.*": 0}).layers[0]
    assert (layer.pruned, layer.reason) == (False, "ratio 0 by '0.*'")


def test_layers_that_are_not_pruned_get_no_values(network):
    plan = make_plan(network, ratios={"*": 0.9}, blocks={"*": (2, 1)})
    assert {layer.name for layer in plan.layers if layer.ratio or layer.block} == {"expand.weight", "project.weight"}


@pytest.mark.parametrize("argument", ["ratios", "blocks"])
@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (
            "exspand.weight",
            "the pattern 'exspand.weight' matches no weight of the network; did you mean 'expand.weight'",
        ),
        ("conv2d_17.w_0", "matches no weight of the network; known: depthwise.weight, expand.weight"),
        ("stem.*", r"'stem.\*' matches no weight that is pruned \(stem.0.weight: 3x3 kernel\)"),
    ],
)
def test_a_pattern_without_effect_is_an_error_that_names_the_nearest(network, argument, pattern, message):
    with pytest.raises(InputError, match=f"{argument}: .*{message}") as error:
        make_plan(network, **{argument: {pattern: {"ratios": 0.75, "blocks": (2, 1)}[argument]}})
    assert "\n" not in str(error.value)


def test_a_block_that_is_given_to_a_layer_must_divide_it(network):
    with pytest.raises(InputError, match=r"blocks: \[5, 1\] of the pattern 'e\*' does not divide expand.weight \[64, "):
        make_plan(network, blocks={"e*": (5, 1)})
    plan = make_plan(network, blocks={"*": (64, 1), "project.*": (4, 2)})  # the exception divides its layer
    assert [layer.block for layer in plan.pruned] == [(64, 1), (4, 2)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ratios": {"*": 75}}, "ratios: '*' must be a fraction from 0.0 to below 1, got 75 (did you mean 0.75?)"),
        ({"ratios": {"*": "0.75"}}, "ratios: '*' must be a fraction"),
        ({"ratios": {"backbone": {"conv": {"weight": 0.8}}}}, "ratios: 'backbone' must be a fraction"),
        ({"ratios": [0.75]}, "ratios must map patterns to values, such as {'head.*': 0.6}, got [0.75]"),
        ({"ratios": {1: 0.75}}, "ratios must map patterns to values"),
        ({"blocks": {"*": 4}}, "blocks: '*' must be two whole numbers, rows and columns, got 4"),
        ({"blocks": {"*": [4, 0]}}, "blocks: '*' must be a whole number of at least 1, got 0"),
        ({"blocks": "4x1"}, "blocks must map patterns to values, such as {'head.*': [2, 1]}, got '4x1'"),
    ],
)
def test_values_are_checked_when_the_settings_are_made(settings, message):
    with pytest.raises(InputError) as error:
        PruningConfig(**settings)
    assert message in str(error.value)


def test_a_default_block_that_does_not_divide_a_layer_leaves_single_weights_and_a_note():
    plan = set_default_block(make_plan(sequence(8, 8, 10, 2, 8), blocks={"3.*": (1, 2)}), (4, 1))
    assert {layer.name: (layer.block, layer.block_note) for layer in plan.pruned} == {
        "0.weight": ((4, 1), ""),
        "1.weight": ((1, 1), "4x1 does not divide it"),
        "2.weight": ((1, 1), "4x1 does not divide it"),  # fewer output channels than a block
        "3.weight": ((1, 2), ""),
    }
    assert set_default_block(plan, (2, 1)) == plan  # every layer has its block


def test_a_default_block_that_divides_no_layer_is_an_error():
    with pytest.raises(InputError, match=r"sparse_block \[16, 1\] divides none .* 0.weight \[8, 8, 1, 1\]"):
        PruningConfig(sparse_block=(16, 1)).make_plan(sequence(8, 8, 8))
    PruningConfig(sparse_block=(16, 1), blocks={"*": (2, 1)}).make_plan(sequence(8, 8, 8))  # none needs the default


def test_a_block_of_a_plan_that_does_not_divide_its_layer_is_an_error():
    plan = PrunePlan((PlannedLayer("a", (6, 4), True, block=(4, 1)),))
    with pytest.raises(InputError, match=r"plan: block \[4, 1\] does not divide a \[6, 4\]"):
        set_default_block(plan, (1, 1))


def test_the_table_shows_ratios_and_blocks_where_layers_differ():
    config = PruningConfig(sparse_block=(4, 1), ratios={"0.*": 0.875})
    rows = [" ".join(line.split()) for line in str(config.make_plan(sequence(8, 8, 10))).splitlines()]
    assert rows[0] == "weight shape output size M MACs ratio block status"
    assert rows[2:4] == [
        "0.weight 8x8x1x1 87.50% 4x1 pruned",
        "1.weight 10x8x1x1 1x1 pruned; 4x1 does not divide it",
    ]
    assert "ratio" not in str(PruningConfig().make_plan(sequence(8, 8)))
    assert "block" not in str(PruningConfig().make_plan(sequence(8, 8)))


def test_the_target_of_all_layers_together_is_weighted_by_their_weights():
    config = PruningConfig(ratio=0.5, ratios={"1.*": 0.875})
    plan = config.make_plan(sequence(8, 8, 24))
    assert config.target_ratio(plan) == (32 + 168) / 256
    assert PruningConfig(ratio=0.75).target_ratio(plan) == (48 + 168) / 256
