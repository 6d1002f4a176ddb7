import math

import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddle_sparse_cb import InputError, PrunePlan
from paddle_sparse_cb.pruning.distribution import SCOPES, layer_ratios
from paddle_sparse_cb.pruning.layer_masks import keep_layer_masks
from paddle_sparse_cb.pruning.layer_settings import set_default_block
from paddle_sparse_cb.pruning.min_sparsity import check_reachable, min_sparsity
from paddle_sparse_cb.pruning.plan import PlannedLayer


def planned(*shapes, ratios=None):
    return PrunePlan(
        tuple(
            PlannedLayer(str(index), shape, True, ratio=(ratios or {}).get(index)) for index, shape in enumerate(shapes)
        )
    )


mixed = st.lists(
    st.tuples(st.integers(1, 12), st.integers(1, 12), st.none() | st.floats(0.05, 0.95)), min_size=1, max_size=4
)


@settings(max_examples=200, deadline=None)
@given(
    layers=mixed,
    block=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    ratio=st.one_of(st.floats(0.05, 0.95), st.floats(0.99, 0.999999)),
    scope=st.sampled_from(SCOPES),
    seed=st.integers(0, 99),
)
def test_every_layer_has_the_zeros_that_were_foretold_or_the_ratio_is_refused(layers, block, ratio, scope, seed):
    plan = planned(
        *[(rows, columns, 1, 1) for rows, columns, _ in layers],
        ratios={index: own for index, (_, _, own) in enumerate(layers)},
    )
    try:
        check_reachable(plan, ratio, scope, block)
    except InputError:
        return
    rows = set_default_block(plan, block).pruned
    draw = np.random.RandomState(seed)
    weights = [paddle.to_tensor(draw.rand(*row.shape).astype("float32") + 1) for row in rows]
    dropped = [~mask.numpy() for mask in keep_layer_masks(rows, weights, layer_ratios(rows, ratio, scope), scope)]
    least = min_sparsity(plan, ratio, scope, block)
    for row, mask in zip(rows, dropped):
        if scope == "global" and row.ratio is None:
            assert least[row.name] == 0.0
        else:
            assert mask.mean() == pytest.approx(least[row.name])
            own = layer_ratios(rows, ratio, scope)[int(row.name)]
            assert mask.sum() >= own * mask.size - 1e-9
    others = [mask for row, mask in zip(rows, dropped) if row.ratio is None]
    size = sum(mask.size for mask in others)
    assert sum(mask.sum() for mask in others) >= ratio * size - 1e-6


def test_whole_blocks_and_single_weights_have_the_ratio():
    plan = planned((16, 8, 1, 1), (40, 30, 1, 1))
    assert list(min_sparsity(plan, 0.75).values()) == [0.75, 0.75]
    assert min_sparsity(planned((16, 8, 1, 1)), 0.75, block=(4, 2)) == {"0": 0.75}


def test_each_layer_has_the_least_sparsity_of_its_own_ratio():
    plan = planned((16, 8, 1, 1), (40, 30, 1, 1), ratios={0: 0.875})
    assert min_sparsity(plan, 0.75) == {"0": 0.875, "1": 0.75}
    assert min_sparsity(plan, 0.75, "global") == {"0": 0.875, "1": 0.0}


def test_erk_leaves_small_layers_denser_and_one_ranking_promises_nothing():
    plan = planned((16, 8, 1, 1), (256, 256, 1, 1))
    small, large = min_sparsity(plan, 0.75, "erk").values()
    assert small < 0.6 < 0.75 < large
    assert set(min_sparsity(plan, 0.75, "global").values()) == {0.0}


def test_one_unit_is_always_left():
    assert min_sparsity(planned((2, 2, 1, 1)), 0.9) == {"0": 0.75}
    assert math.isclose(min_sparsity(planned((3, 1, 1, 1)), 0.9)["0"], 2 / 3)


@pytest.mark.parametrize(
    ("plan", "ratio", "scope", "block", "message"),
    [
        (
            planned((12, 12, 1, 1)),
            0.5,
            "uniform",
            (8, 8),
            r"sparse_block \[8, 8\] divides none of the layers to prune, such as 0 \[12, 12, 1, 1\]",
        ),
        (
            planned(*[(16, 16, 1, 1)] * 3),
            0.999999,
            "global",
            (1, 1),
            r"0.999999 cannot be reached: 765 of the 768 weights or",
        ),
        (
            planned((16, 16, 1, 1), (2, 1, 1, 1)),
            0.75,
            "uniform",
            (1, 1),
            r"ratio 0.75 would zero all 2 weights or blocks of 1; skip it",
        ),
        (planned((16, 16, 1, 1)), 0.75, "erk", (16, 16), r"would zero all 1 weights or blocks of 0"),
        (
            planned((16, 16, 1, 1), (4, 1, 1, 1), ratios={1: 0.8}),
            0.5,
            "global",
            (1, 1),
            r"ratio 0.8 would zero all 4 weights or blocks of 1",
        ),
    ],
)
def test_a_ratio_that_is_not_reached_is_an_error_that_says_why(plan, ratio, scope, block, message):
    with pytest.raises(InputError, match=message):
        check_reachable(plan, ratio, scope, block)


def test_blocks_that_divide_all_layers_reach_every_ratio_that_leaves_one():
    check_reachable(planned((16, 8, 1, 1), (8, 64, 1, 1)), 0.875, "uniform", (8, 1))
    check_reachable(planned((16, 16, 1, 1)), 1 - 1 / 256, "global", (1, 1))
