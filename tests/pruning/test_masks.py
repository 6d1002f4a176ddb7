from fractions import Fraction
from typing import Any

import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddle_sparse_cb import InputError
from paddle_sparse_cb.pruning.masks import (
    check_block,
    count_units,
    keep_masks,
    keep_masks_on_device,
    keep_masks_on_host,
    prune_count,
)
from paddle_sparse_cb.utils import float_bits

finite = st.floats(-4, 4, width=32)
ratios = st.sampled_from([0.0, 0.15, 0.5, 0.6, 0.75, 0.85, 0.999]) | st.floats(0, 0.999)


def pruned(values, ratio, **keywords):
    """Marks the weights that are pruned in one layer of these values."""
    weight = paddle.to_tensor(np.array(values, "float32").reshape(1, -1))
    return ~keep_masks([weight], ratio, **keywords)[0].numpy().reshape(-1)


@settings(max_examples=200, deadline=None)
@given(ratios, st.integers(1, 10**7))
def test_the_count_is_the_smallest_one_that_reaches_the_ratio(ratio, units):
    count, exact = prune_count(ratio, units), Fraction(repr(ratio))
    assert Fraction(count, units) >= exact
    assert Fraction(count - 1, units) < exact


@settings(max_examples=200, deadline=None)
@given(st.lists(finite.filter(bool), min_size=2, max_size=60), ratios)
def test_exactly_the_smallest_weights_of_a_layer_are_pruned_but_never_all(values, ratio):
    count = min(prune_count(ratio, len(values)), len(values) - 1)
    order = np.argsort(np.abs(np.array(values, "float32")), kind="stable")
    expected = np.zeros(len(values), bool)
    expected[order[:count]] = True
    np.testing.assert_array_equal(pruned(values, ratio), expected)


@settings(max_examples=100, deadline=None)
@given(st.lists(finite, min_size=2, max_size=60), ratios, ratios)
def test_pruned_weights_stay_pruned_while_the_ratio_rises(values, one, other):
    low, high = sorted((one, other))
    weight = np.array(values, "float32")
    first = pruned(weight, low)
    weight[first] = 0
    weight[~first] += np.sign(weight[~first]) * 0.5  # the others are trained
    assert not (first & ~pruned(weight, high)).any()


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.lists(finite, min_size=2, max_size=20), min_size=1, max_size=4),
    ratios,
    st.booleans(),
    st.sampled_from([(1, 1), (1, 2), (1, 3)]),
    st.sampled_from([1, 3, 1 << 16]),
)
def test_host_and_device_keep_the_same_weights_with_chunks_of_any_size(layers, ratio, monotone, block, chunk):
    weights = [paddle.to_tensor(np.array([values], "float32")) for values in layers]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(float_bits, "CHUNK_SIZE", chunk)
        host = keep_masks_on_host(weights, ratio, block, monotone)
    for mask, device in zip(host, keep_masks_on_device(weights, ratio, block, monotone)):
        np.testing.assert_array_equal(mask.numpy(), device.numpy())


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(finite.filter(bool), min_size=2, max_size=20), min_size=2, max_size=5), ratios)
def test_one_ranking_prunes_exactly_the_ratio_and_no_layer_completely(layers, ratio):
    weights = [paddle.to_tensor(np.array([values], "float32")) for values in layers]
    dropped = [~mask.numpy() for mask in keep_masks(weights, ratio)]
    units = sum(mask.size for mask in dropped)
    assert sum(mask.sum() for mask in dropped) == min(prune_count(ratio, units), units - len(layers))
    assert not any(mask.all() for mask in dropped)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.lists(st.sampled_from([0.0, 0.0, 0.0, -0.0, 1.0, -2.0]), min_size=2, max_size=8).filter(any),
        min_size=1,
        max_size=4,
    ),
    ratios,
    st.booleans(),
)
def test_zeros_stay_pruned_in_layers_with_any_other_weights_even_with_one(layers, ratio, on_device):
    weights = [paddle.to_tensor(np.array([values], "float32")) for values in layers]
    keep = keep_masks_on_device if on_device else keep_masks_on_host
    for weight, mask in zip(weights, keep(weights, ratio, (1, 1), True)):
        assert not (mask.numpy() & (weight.numpy() == 0)).any()
        assert mask.numpy().any()


def test_layers_of_zeros_are_pruned_by_position_to_the_ratio():
    masks = keep_masks([paddle.zeros([1, 4]), paddle.zeros([1, 6])], 0.3)
    assert sum(int((~mask.numpy()).sum()) for mask in masks) == 3


def test_one_ranking_prunes_the_smallest_weights_of_all_layers():
    weights = [paddle.to_tensor([[0.1, 0.2, 0.3]]), paddle.to_tensor([[5.0, 6.0, 7.0, 8.0, 9.0]])]
    dropped = [(~mask.numpy()).astype(int).tolist() for mask in keep_masks(weights, 0.5)]
    assert dropped == [[[1, 1, 0]], [[1, 1, 0, 0, 0]]]


def test_a_sparse_layer_keeps_its_zeros_at_a_lower_ratio():
    weight = np.array([0, 0, 0, 5, 0, 1, 0, 0, 2])
    np.testing.assert_array_equal(pruned(weight, 0.3), weight == 0)


def test_without_monotone_zeros_beyond_the_ratio_are_kept():
    assert pruned([0, 0, 0, 5, 0, 1, 0, 0, 2], 0.3, monotone=False).sum() == 3


def test_a_layer_of_zeros_is_pruned_by_position_to_the_ratio():
    np.testing.assert_array_equal(pruned([0] * 10, 0.5), [True] * 5 + [False] * 5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_every_type_of_weight_is_ranked(dtype):
    weight = paddle.to_tensor([[3.0, -1.0, 0.5, -2.0]]).astype(dtype)
    assert keep_masks([weight], 0.5)[0].numpy().tolist() == [[True, False, False, True]]


def test_weights_that_paddle_takes_for_equal_are_ranked():
    weight = [3e-9, 1e-9, 2e-9, 4e-45, 0.0, 1e-44]
    if paddle.__version__ < "3":
        assert bool((paddle.to_tensor(weight[:3]) == 0).all())  # the defect that comparing bits avoids
    np.testing.assert_array_equal(pruned(weight, 0.6), [0, 1, 0, 1, 1, 1])


@pytest.mark.parametrize("block", [(1, 1), (2, 1), (4, 1), (1, 4), (2, 3), (5, 7)])
@pytest.mark.parametrize("shape", [(8, 12, 1, 1), (7, 5, 1, 1), (6, 4, 3, 3), (9, 10)])
def test_blocks_are_ranked_by_their_l1_norm_and_pruned_as_one(shape, block):
    weight = np.random.randn(*shape).astype("float32")
    flat, (height, width) = np.abs(weight).reshape(shape[0], -1), block
    places = [(y, x) for y in range(0, flat.shape[0], height) for x in range(0, flat.shape[1], width)]
    norms = np.array([flat[y : y + height, x : x + width].sum() for y, x in places])
    assert count_units(shape, block) == len(places)
    dropped = set(np.argsort(norms, kind="stable")[: min(prune_count(0.5, len(places)), len(places) - 1)])
    kept = keep_masks([paddle.to_tensor(weight)], 0.5, block)[0].numpy().reshape(flat.shape)
    for index, (y, x) in enumerate(places):
        assert (kept[y : y + height, x : x + width] == (index not in dropped)).all()


def test_a_block_of_large_weights_of_opposite_sign_is_kept():
    """PaddleSlim ranks a block by the magnitude of its mean, which is 0 for the first one."""
    weight = paddle.to_tensor([[5.0, -5.0, 1.0, 1.0]])
    assert keep_masks([weight], 0.5, (1, 2))[0].numpy().tolist() == [[True, True, False, False]]


@pytest.mark.parametrize("block", [(0, 1), (1,), 2, (1.5, 1), "11"])
def test_a_block_that_is_not_two_positive_whole_numbers_is_an_error(block):
    with pytest.raises(InputError, match="sparse_block"):
        check_block(block)


def test_a_valid_block_is_returned_as_a_tuple_of_ints():
    block: list[Any] = [np.int64(8), 1]
    assert check_block(block) == (8, 1)


def test_earlier_masks_are_overwritten_and_returned():
    weights = [paddle.to_tensor([[0.1, -3.0], [2.0, 0.2]]), paddle.to_tensor([[5.0, 6.0]])]
    earlier = [paddle.ones([2, 2], dtype="bool"), None]
    masks = keep_masks(weights, 0.5, out=earlier)
    assert masks[0] is earlier[0]
    assert [mask.numpy().tolist() for mask in masks] == [[[False, True], [False, False]], [[True, True]]]


@pytest.mark.parametrize("block", [(1, 1), (1, 2)])
def test_a_layer_with_one_unit_left_keeps_its_zeros_at_a_lower_ratio(block):
    weight = np.array([0, 0, 0, 0, 0, 0, 5, 1])[-4 * block[1] :]
    weight[-2:] = (5, 1) if block == (1, 2) else (0, 5)
    (mask,) = keep_masks([paddle.to_tensor(weight[None].astype("float32"))], 0.3, block)
    np.testing.assert_array_equal(mask.numpy()[0], weight != 0)
