from fractions import Fraction

import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddle_sparse_cb import masks
from paddle_sparse_cb.bits import magnitude_bits

finite = st.floats(-4, 4, width=32)
ratios = st.sampled_from([0.0, 0.15, 0.5, 0.6, 0.75, 0.85, 0.999]) | st.floats(0, 0.999)


def scores_of(values):
    return magnitude_bits(paddle.to_tensor(np.array(values, "float32")))


def numpy_smallest(scores, count):
    """The reference: a stable sort, so that of equal scores the first go first."""
    marks = np.zeros(len(scores), bool)
    marks[np.argsort(scores, kind="stable")[:count]] = True
    return marks


@settings(max_examples=200, deadline=None)
@given(st.lists(finite, min_size=1, max_size=60), st.data())
def test_exactly_the_smallest_and_of_equal_ones_the_first(values, data):
    count = data.draw(st.integers(0, len(values)))
    scores = np.abs(np.array(values, "float32"))
    marks = masks.smallest(scores_of(scores), count).numpy()
    assert marks.sum() == count
    np.testing.assert_array_equal(marks, numpy_smallest(scores, count))


@settings(max_examples=200, deadline=None)
@given(ratios, st.integers(1, 10**7))
def test_the_count_is_the_smallest_that_reaches_the_ratio(ratio, units):
    count, exact = masks.prune_count(ratio, units), Fraction(repr(ratio))
    assert Fraction(count, units) >= exact
    assert Fraction(count - 1, units) < exact


@settings(max_examples=100, deadline=None)
@given(st.lists(finite.filter(bool), min_size=2, max_size=60), ratios)
def test_a_layer_gets_exactly_its_ratio_but_keeps_one_weight(values, ratio):
    pruned = int(masks.prune([scores_of(values)], ratio)[0].astype("int32").sum())
    assert pruned == min(masks.prune_count(ratio, len(values)), len(values) - 1)


@settings(max_examples=100, deadline=None)
@given(st.lists(finite, min_size=2, max_size=60), ratios, ratios)
def test_what_is_pruned_stays_pruned_while_the_ratio_rises(values, one, other):
    low, high = sorted((one, other))
    weight = np.array(values, "float32")
    first = masks.prune([scores_of(weight)], low)[0].numpy()
    weight[first] = 0
    weight[~first] += np.sign(weight[~first]) * 0.5  # the others train on
    second = masks.prune([scores_of(weight)], high)[0].numpy()
    assert not (first & ~second).any()


def test_a_sparse_network_keeps_its_zeros_at_a_lower_ratio():
    weight = np.array([0, 0, 0, 5, 0, 1, 0, 0, 2])
    np.testing.assert_array_equal(masks.prune([scores_of(weight)], 0.3)[0].numpy(), weight == 0)


def test_a_layer_of_zeros_is_pruned_by_position_and_keeps_weights():
    pruned = masks.prune([scores_of([0] * 10)], 0.5)[0].numpy()
    assert pruned.sum() == 5


def test_one_ranking_over_all_layers_takes_the_smallest_anywhere_and_empties_no_layer():
    layers = [scores_of([0.1, 0.2, 0.3]), scores_of([5, 6, 7, 8, 9])]
    pruned = [mark.numpy() for mark in masks.prune(layers, 0.5)]
    np.testing.assert_array_equal(pruned[0], [True, True, False])
    np.testing.assert_array_equal(pruned[1], [True, True, False, False, False])


@pytest.mark.parametrize("block", [(1, 1), (2, 1), (4, 1), (1, 4), (2, 3), (5, 7)])
@pytest.mark.parametrize("shape", [(8, 12, 1, 1), (7, 5, 1, 1), (6, 4, 3, 3), (9, 10)])
def test_blocks_are_scored_by_their_l1_norm_and_go_as_one(shape, block):
    weight = np.random.randn(*shape).astype("float32")
    flat = np.abs(weight).reshape(shape[0], -1)
    height, width = block
    expected = [flat[y:y + height, x:x + width].sum()
                for y in range(0, flat.shape[0], height) for x in range(0, flat.shape[1], width)]
    scores = masks.block_scores(paddle.to_tensor(weight), block)
    np.testing.assert_allclose(scores.view("float32").numpy(), expected, rtol=1e-5)
    pruned = masks.prune([scores], 0.5)[0]
    spread = masks.spread(pruned, shape, block).numpy().reshape(flat.shape)
    for index, (y, x) in enumerate((y, x) for y in range(0, flat.shape[0], height)
                                   for x in range(0, flat.shape[1], width)):
        assert (spread[y:y + height, x:x + width] == bool(pruned[index])).all()


def test_a_block_of_opposite_weights_is_not_worthless():
    scores = masks.block_scores(paddle.to_tensor([[5.0, -5.0]]), (1, 2))
    assert scores.view("float32").numpy().tolist() == [10.0]


def test_weights_too_small_for_paddles_own_comparisons_are_ranked_all_the_same():
    weight = [3e-9, 1e-9, 2e-9, 4e-45, 0.0, 1e-44]
    if paddle.__version__ < "3":
        assert bool((paddle.to_tensor(weight[:3]) == 0).all())  # so Paddle says
    np.testing.assert_array_equal(masks.prune([scores_of(weight)], 0.6)[0].numpy(), [0, 1, 0, 1, 1, 1])
