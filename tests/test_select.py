import tracemalloc

import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddle_sparse_cb import select
from paddle_sparse_cb.select import mark_smallest, mark_smallest_on_device


def reference(scores, count):
    """A stable sort: of equal scores the first go first."""
    marks = np.zeros(len(scores), bool)
    marks[np.argsort(scores, kind="stable")[:count]] = True
    return marks


def on_host(layers, count):
    made = mark_smallest([lambda layer=layer: layer for layer in layers], [len(layer) for layer in layers], count)
    return np.concatenate(made)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 20) | st.integers(0, 2**31 - 1), min_size=1, max_size=80), st.data())
def test_exactly_the_smallest_and_of_equal_ones_the_first(values, data):
    count = data.draw(st.integers(0, len(values)))
    scores = np.array(values, "int32")
    np.testing.assert_array_equal(on_host([scores], count), reference(scores, count))
    np.testing.assert_array_equal(mark_smallest_on_device(paddle.to_tensor(scores), count).numpy(),
                                  reference(scores, count))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(st.integers(0, 5) | st.integers(0, 2**31 - 1), min_size=1, max_size=60), min_size=1,
                max_size=4), st.sampled_from([1, 5, 13]), st.data())
def test_the_histogram_of_large_layers_is_as_exact(layers, bits, data):
    layers = [np.array(layer, "int32") for layer in layers]
    scores = np.concatenate(layers)
    count = data.draw(st.integers(0, len(scores)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(select, "_SMALL", 1)
        patch.setattr(select, "_BITS", bits)
        np.testing.assert_array_equal(on_host(layers, count), reference(scores, count))


@pytest.mark.parametrize("dtype", ["int16", "int32", "int64"])
@pytest.mark.parametrize("count", [1, 30_000, 99_999, 100_000])
def test_every_width_of_scores_has_its_histogram(dtype, count):
    scores = np.random.randint(0, np.iinfo(dtype).max, 100_000).astype(dtype)
    np.testing.assert_array_equal(on_host([scores], count), reference(scores, count))


@pytest.mark.parametrize("count", [1, 5_000, 10_000])
def test_scores_that_are_all_the_same_go_by_position(count):
    scores = np.full(10_000, 12345, "int32")
    np.testing.assert_array_equal(on_host([scores], count), reference(scores, count))


def test_several_million_values_are_exact():
    scores = np.abs(np.random.randn(3_000_000).astype("float32")).view("int32")
    marks = on_host(np.split(scores, 3), 2_250_000)
    assert marks.sum() == 2_250_000
    assert scores[marks].max() <= scores[~marks].min()


def test_memory_beyond_the_scores_is_less_than_one_byte_a_value():
    layers = [np.abs(np.random.randn(1_000_000).astype("float32")).view("int32") for _ in range(8)]
    tracemalloc.start()
    mark_smallest([lambda layer=layer: layer for layer in layers], [1_000_000] * 8, 6_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8_000_000 + 2 * 8_000_000 / 8 + 16_000_000  # the marks, the bracketed few, one layer's scratch
