import functools
import tracemalloc

import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddle_sparse_cb.pruning import topk as select
from paddle_sparse_cb.pruning.topk import drop_smallest, drop_smallest_on_device


def reference(scores, count):
    """A stable sort: of equal scores the first go first."""
    marks = np.zeros(len(scores), bool)
    marks[np.argsort(scores, kind="stable")[:count]] = True
    return marks


def is_on_host(layers, count):
    """Marks what is dropped."""
    kept = [np.empty(len(layer), bool) for layer in layers]
    scratch = np.empty(max(map(len, layers)), layers[0].dtype)

    def scores(layer):  # written over those of the chunk before, as the masks' scores are
        scratch[:len(layer)] = layer
        return scratch[:len(layer)]

    drop_smallest([functools.partial(scores, layer) for layer in layers], kept, count)
    return ~np.concatenate(kept)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 20) | st.integers(0, 2**31 - 1), min_size=1, max_size=80), st.data())
def test_exactly_the_smallest_and_of_equal_ones_the_first(values, data):
    count = data.draw(st.integers(0, len(values)))
    scores = np.array(values, "int32")
    np.testing.assert_array_equal(is_on_host([scores], count), reference(scores, count))
    np.testing.assert_array_equal(~drop_smallest_on_device(paddle.to_tensor(scores), count).numpy(),
                                  reference(scores, count))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.lists(st.integers(0, 5) | st.integers(0, 2**31 - 1), min_size=1, max_size=60), min_size=1,
                max_size=4), st.sampled_from([3.5, 0.0]), st.data())
def test_the_bracket_of_many_scores_is_as_exact_also_where_it_misses(layers, width, data):
    layers = [np.array(layer, "int32") for layer in layers]
    scores = np.concatenate(layers)
    count = data.draw(st.integers(0, len(scores)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(select, "_SMALL", 15)
        patch.setattr(select, "_WIDTH", width)
        np.testing.assert_array_equal(is_on_host(layers, count), reference(scores, count))


@pytest.mark.parametrize("dtype", ["int16", "int32", "int64"])
@pytest.mark.parametrize("count", [1, 30_000, 99_999, 100_000])
def test_scores_of_every_width_are_ranked(dtype, count):
    scores = np.random.randint(0, np.iinfo(dtype).max, 100_000).astype(dtype)
    np.testing.assert_array_equal(is_on_host([scores], count), reference(scores, count))


@pytest.mark.parametrize("count", [1, 40_000, 75_000, 99_999])
@pytest.mark.parametrize("order", [np.sort, lambda scores: np.sort(scores)[::-1],
                                   lambda scores: np.tile(scores[:49], 2041)])
def test_an_order_that_misleads_the_sample_costs_no_exactness(order, count):
    scores = order(np.random.randint(0, 1 << 30, 100_000).astype("int32"))
    np.testing.assert_array_equal(is_on_host([scores], count), reference(scores, count))


@pytest.mark.parametrize("count", [1, 5_000, 10_000])
def test_scores_that_are_all_the_same_go_by_position(count):
    scores = np.full(10_000, 12345, "int32")
    np.testing.assert_array_equal(is_on_host([scores], count), reference(scores, count))


def test_a_sample_of_many_chunks_finds_the_threshold_in_three_passes(monkeypatch):
    passes = []
    count = select._counted
    monkeypatch.setattr(select, "_counted", lambda *inputs: passes.append(inputs) or count(*inputs))
    layers = [np.abs(scale * np.random.randn(30_000).astype("float32")).view("int32") for scale in (0.01, 1, 3, 0.2)]
    assert is_on_host(layers, 90_000).sum() == 90_000
    assert len(passes) <= 3


def test_several_million_values_are_exact():
    scores = np.abs(np.random.randn(3_000_000).astype("float32")).view("int32")
    marks = is_on_host(np.split(scores, 3), 2_250_000)
    assert marks.sum() == 2_250_000
    assert scores[marks].max() <= scores[~marks].min()


def test_memory_beyond_the_scores_is_less_than_one_byte_a_value():
    layers = [np.abs(np.random.randn(1_000_000).astype("float32")).view("int32") for _ in range(8)]
    tracemalloc.start()
    marks = is_on_host(layers, 6_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert marks.sum() == 6_000_000
    assert peak < 3 * 8_000_000 + 8_000_000 / 2  # the marks, three times in this test; and the bracketed few
