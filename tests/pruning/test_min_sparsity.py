import math

import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddle_sparse_cb import InputError, PrunePlan
from paddle_sparse_cb.pruning.distribution import SCOPES, layer_ratios
from paddle_sparse_cb.pruning.masks import keep_masks
from paddle_sparse_cb.pruning.min_sparsity import check_reachable, min_sparsity
from paddle_sparse_cb.pruning.plan import PlannedLayer


def planned(*shapes):
    return PrunePlan(tuple(PlannedLayer(str(index), shape, True) for index, shape in enumerate(shapes)))


def edges_first(draw, rows, columns, block):
    """Returns weights in the worst case: small ones where the blocks are incomplete."""
    magnitudes = draw.rand(rows, columns) + 1
    magnitudes[rows - rows % block[0] :] *= 1e-3
    magnitudes[:, columns - columns % block[1] :] *= 1e-3
    return magnitudes.reshape(rows, columns, 1, 1).astype("float32")


@settings(max_examples=150, deadline=None)
@given(
    rows=st.integers(2, 12),
    columns=st.integers(2, 12),
    block=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    ratio=st.floats(0.05, 0.95),
    seed=st.integers(0, 99),
)
def test_no_mask_has_fewer_zeros_than_foretold(rows, columns, block, ratio, seed):
    least = min_sparsity(planned((rows, columns, 1, 1)), ratio, "uniform", block)["0"]
    weight = paddle.to_tensor(edges_first(np.random.RandomState(seed), rows, columns, block))
    zeros = 1 - keep_masks([weight], ratio, block)[0].numpy().mean()
    assert zeros >= least - 1e-12
    if block == (1, 1) or (rows % block[0] == 0 and columns % block[1] == 0):
        assert zeros == pytest.approx(least)


def test_whole_blocks_and_single_weights_have_the_ratio():
    plan = planned((16, 8, 1, 1), (40, 30, 1, 1))
    assert list(min_sparsity(plan, 0.75).values()) == [0.75, 0.75]
    assert min_sparsity(planned((16, 8, 1, 1)), 0.75, block=(4, 2)) == {"0": 0.75}


def test_a_block_that_does_not_divide_a_layer_may_leave_it_denser():
    assert min_sparsity(planned((24, 10, 1, 1)), 0.75, block=(16, 1)) == {"0": pytest.approx((10 * 8 + 5 * 16) / 240)}


def test_erk_leaves_small_layers_denser_and_one_ranking_promises_nothing():
    plan = planned((16, 8, 1, 1), (256, 256, 1, 1))
    small, large = min_sparsity(plan, 0.75, "erk").values()
    assert small < 0.6 < 0.75 < large
    assert set(min_sparsity(plan, 0.75, "global").values()) == {0.0}


def test_one_unit_is_always_left():
    assert min_sparsity(planned((2, 2, 1, 1)), 0.9) == {"0": 0.75}
    assert math.isclose(min_sparsity(planned((3, 1, 1, 1)), 0.9)["0"], 2 / 3)


@settings(max_examples=150, deadline=None)
@given(
    shapes=st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12)), min_size=1, max_size=3),
    block=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    ratio=st.one_of(st.floats(0.05, 0.95), st.floats(0.99, 0.999999)),
    scope=st.sampled_from(SCOPES),
    seed=st.integers(0, 99),
)
def test_a_ratio_is_reached_by_every_mask_or_refused(shapes, block, ratio, scope, seed):
    plan = planned(*[(*shape, 1, 1) for shape in shapes])
    try:
        check_reachable(plan, ratio, scope, block)
    except InputError:
        return
    draw = np.random.RandomState(seed)
    weights = [paddle.to_tensor(edges_first(draw, rows, columns, block)) for rows, columns in shapes]
    if scope == "global":
        masks = keep_masks(weights, ratio, block)
    else:
        ratios = layer_ratios([layer.shape for layer in plan.pruned], ratio, scope)
        masks = [keep_masks([weight], one, block)[0] for weight, one in zip(weights, ratios)]
    size = sum(math.prod(shape) for shape in shapes)
    assert size - sum(int(mask.astype("int64").sum()) for mask in masks) >= ratio * size - 1e-9


@pytest.mark.parametrize(
    ("shapes", "ratio", "scope", "block", "message"),
    [
        (
            [(12, 12, 1, 1)],
            0.5,
            "uniform",
            (8, 8),
            r"sparse_block \[8, 8\] does not divide 0 \[12, 12, 1, 1\], which may end with as few as 33.33% zeros "
            r"instead of 50.00%",
        ),
        ([(16, 16, 1, 1), (9, 16, 1, 1)], 0.5, "global", (8, 8), r"does not divide all of the 2 layers"),
        ([(16, 16, 1, 1)] * 3, 0.999999, "global", (1, 1), r"0.999999 cannot be reached: 765 of the 768 weights or"),
        ([(16, 16, 1, 1), (2, 1, 1, 1)], 0.75, "uniform", (1, 1), r"would zero all 2 weights or blocks of 1; skip it"),
        ([(16, 16, 1, 1)], 0.75, "erk", (16, 16), r"would zero all 1 weights or blocks of 0"),
        ([(64, 64, 1, 1), (40, 40, 1, 1)], 0.9, "erk", (16, 16), r"does not divide 1 \[40, 40, 1, 1\]"),
    ],
)
def test_a_ratio_that_is_not_reached_is_an_error_that_says_why(shapes, ratio, scope, block, message):
    with pytest.raises(InputError, match=message):
        check_reachable(planned(*shapes), ratio, scope, block)


def test_blocks_that_divide_all_layers_reach_every_ratio_that_leaves_one():
    check_reachable(planned((16, 8, 1, 1), (8, 64, 1, 1)), 0.875, "uniform", (8, 1))
    check_reachable(planned((16, 16, 1, 1)), 1 - 1 / 256, "global", (1, 1))
