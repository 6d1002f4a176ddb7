import math

import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddle_sparse_cb import PrunePlan
from paddle_sparse_cb.pruning.masks import keep_masks
from paddle_sparse_cb.pruning.min_sparsity import min_sparsity
from paddle_sparse_cb.pruning.plan import PlannedLayer


def planned(*shapes):
    return PrunePlan(tuple(PlannedLayer(str(index), shape, True) for index, shape in enumerate(shapes)))


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
    # The edge first: small weights where the blocks are incomplete are the worst case.
    magnitudes = np.random.RandomState(seed).rand(rows, columns) + 1
    magnitudes[rows - rows % block[0] :] *= 1e-3
    magnitudes[:, columns - columns % block[1] :] *= 1e-3
    weight = paddle.to_tensor(magnitudes.reshape(rows, columns, 1, 1).astype("float32"))
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
