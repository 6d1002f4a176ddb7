import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddle_sparse_cb import InputError
from paddle_sparse_cb.pruning.distribution import (
    SCOPES,
    check_scope,
    erk_ratios,
    layer_ratios,
    overall_ratio,
    rankings,
)
from paddle_sparse_cb.pruning.plan import PlannedLayer

shapes = st.lists(st.lists(st.integers(1, 64), min_size=2, max_size=4), min_size=1, max_size=8)


@settings(max_examples=200, deadline=None)
@given(shapes, st.floats(0, 0.99))
def test_all_layers_together_reach_the_ratio_with_erk(shapes, ratio):
    sizes = [math.prod(shape) for shape in shapes]
    ratios = erk_ratios(shapes, ratio)
    assert all(0 <= each < 1 for each in ratios)
    pruned = sum(each * size for each, size in zip(ratios, sizes))
    assert pruned == pytest.approx(ratio * sum(sizes), rel=1e-9, abs=1e-6)


def test_erk_prunes_nothing_at_ratio_0():
    assert erk_ratios([[64, 16, 1, 1], [32, 64, 1, 1]], 0.0) == [0.0, 0.0]


def test_erk_densities_are_those_of_the_paper():
    """1 - epsilon * (sum of dimensions) / (their product), with one epsilon for all layers that are not dense."""
    shapes = [[64, 64, 3, 3], [128, 64, 1, 1], [256, 128, 1, 1]]
    ratios = erk_ratios(shapes, 0.9)
    assert min(ratios) > 0
    epsilons = {round((1 - ratio) * math.prod(shape) / sum(shape), 6) for shape, ratio in zip(shapes, ratios)}
    assert len(epsilons) == 1


def test_no_erk_ratio_falls_when_the_target_rises():
    shapes = [[8, 8, 1, 1], [64, 64, 1, 1], [256, 64, 1, 1]]
    low, high = erk_ratios(shapes, 0.5), erk_ratios(shapes, 0.75)
    assert all(a <= b for a, b in zip(low, high))
    assert low[1:] < high[1:]


def planned(*shapes, ratios=None, blocks=None):
    """Planned layers with their own ratios and blocks by index."""
    return [
        PlannedLayer(str(index), shape, True, ratio=(ratios or {}).get(index), block=(blocks or {}).get(index, (1, 1)))
        for index, shape in enumerate(shapes)
    ]


SMALL, LARGE, OWN = (8, 8, 1, 1), (64, 64, 1, 1), (16, 16, 1, 1)


@pytest.mark.parametrize("scope", SCOPES)
def test_a_layer_with_a_ratio_of_its_own_takes_no_part_in_the_scope(scope):
    ratios = layer_ratios(planned(SMALL, OWN, LARGE, ratios={1: 0.9}), 0.75, scope)
    assert [ratios[0], ratios[2]] == layer_ratios(planned(SMALL, LARGE), 0.75, scope)
    assert ratios[1] == 0.9


def test_each_scope_gives_a_ranking_its_ratio():
    layers = planned(SMALL, LARGE)
    assert layer_ratios(layers, 0.75, "uniform") == [0.75, 0.75]
    assert layer_ratios(layers, 0.75, "erk") == erk_ratios([SMALL, LARGE], 0.75)
    assert layer_ratios(layers, 0.75, "global") == [0.75, 0.75]
    assert layer_ratios(planned(OWN, ratios={0: 0.9}), 0.75, "uniform", {0.9: 0.4}) == [0.4]  # its ratio at present


def test_only_layers_with_equal_blocks_and_without_a_ratio_are_ranked_together():
    layers = planned(*[LARGE] * 5, ratios={1: 0.9}, blocks={2: (4, 1), 4: (4, 1)})
    assert rankings(layers, "uniform") == rankings(layers, "erk") == [[0], [1], [2], [3], [4]]
    assert rankings(layers, "global") == [[0, 3], [1], [2, 4]]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(2, 40), st.none() | st.floats(0.1, 0.99)), min_size=1, max_size=6))
def test_the_overall_ratio_is_what_the_layers_together_are_asked_for(layers):
    planned_layers = [PlannedLayer("x", (rows, 3), True, ratio=ratio) for rows, ratio in layers]
    overall = overall_ratio(planned_layers, 0.75)
    numel = sum(3 * rows for rows, _ in layers)
    assert overall == pytest.approx(sum(3 * n * (0.75 if r is None else r) for n, r in layers) / numel, abs=6 / numel)
    zeros = sum(math.ceil(3 * n * (0.75 if r is None else r)) for n, r in layers)
    assert zeros / numel >= overall  # never more than whole layers have


@pytest.mark.parametrize(
    ("scope", "hint"),
    [
        ("local", "did you mean 'uniform'?"),
        ("Global", "did you mean 'global'?"),
        ("ERK", "known: erk, global, uniform"),
        (["uniform"], "did you mean 'uniform'?"),
    ],
)
def test_an_unknown_scope_is_an_error_that_suggests_a_known_one(scope, hint):
    with pytest.raises(InputError) as error:
        check_scope(scope)
    assert str(error.value) == f"scope must be one of uniform, global, erk, got {scope!r}; {hint}"


def test_known_scopes_and_none_are_returned():
    assert [check_scope(scope) for scope in (*SCOPES, None)] == [*SCOPES, None]
