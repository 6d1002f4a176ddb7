import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddle_sparse_cb import InputError
from paddle_sparse_cb.pruning.distribution import check_scope, erk_ratios

shapes = st.lists(st.lists(st.integers(1, 64), min_size=2, max_size=4), min_size=1, max_size=8)


@settings(max_examples=200, deadline=None)
@given(shapes, st.floats(0, 0.99))
def test_all_layers_together_have_the_ratio(shapes, ratio):
    sizes = [math.prod(shape) for shape in shapes]
    ratios = erk_ratios(shapes, ratio)
    assert all(0 <= each < 1 for each in ratios)
    pruned = sum(each * size for each, size in zip(ratios, sizes))
    assert pruned == pytest.approx(ratio * sum(sizes), rel=1e-9, abs=1e-6)


def test_the_densities_are_those_of_the_paper():
    """1 - epsilon * (sum of dimensions) / (their product), with one epsilon for all layers that are not dense."""
    shapes = [[64, 64, 3, 3], [128, 64, 1, 1], [256, 128, 1, 1]]
    epsilons = {round((1 - ratio) * math.prod(shape) / sum(shape), 6)
                for shape, ratio in zip(shapes, erk_ratios(shapes, 0.9))}
    assert len(epsilons) == 1


def test_ratios_rise_together():
    shapes = [[8, 8, 1, 1], [64, 64, 1, 1], [256, 64, 1, 1]]
    low, high = erk_ratios(shapes, 0.5), erk_ratios(shapes, 0.75)
    assert all(a <= b for a, b in zip(low, high))


def test_an_unknown_scope_is_an_error():
    with pytest.raises(InputError, match="scope is one of local, global, erk, got 'uniform'"):
        check_scope("uniform")
