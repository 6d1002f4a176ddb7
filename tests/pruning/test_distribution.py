import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddle_sparse_cb import InputError
from paddle_sparse_cb.pruning.distribution import SCOPES, check_scope, erk_ratios, layer_ratios

shapes = st.lists(st.lists(st.integers(1, 64), min_size=2, max_size=4), min_size=1, max_size=8)


@settings(max_examples=200, deadline=None)
@given(shapes, st.floats(0, 0.99))
def test_all_layers_together_reach_the_ratio_with_erk(shapes, ratio):
    sizes = [math.prod(shape) for shape in shapes]
    ratios = erk_ratios(shapes, ratio)
    assert all(0 <= each < 1 for each in ratios)
    pruned = sum(each * size for each, size in zip(ratios, sizes))
    assert pruned == pytest.approx(ratio * sum(sizes), rel=1e-9, abs=1e-6)


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


def test_each_scope_guarantees_a_layer_its_ratio():
    shapes = [[8, 8, 1, 1], [64, 64, 1, 1]]
    assert layer_ratios(shapes, 0.75, "uniform") == [0.75, 0.75]
    assert layer_ratios(shapes, 0.75, "erk") == erk_ratios(shapes, 0.75)
    assert layer_ratios(shapes, 0.75, "global") == [0.0, 0.0]  # the weights decide


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
