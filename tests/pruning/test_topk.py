import functools
import tracemalloc

import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddle_sparse_cb.pruning import topk
from paddle_sparse_cb.pruning.topk import drop_smallest, drop_smallest_on_device


def expected_drops(scores, count):
    """Marks the first `count` scores of a stable sort, in which the first of equal scores come first."""
    dropped = np.zeros(len(scores), bool)
    dropped[np.argsort(scores, kind="stable")[:count]] = True
    return dropped


class Chunks:
    """The scores of several chunks, which overwrite each other as those of the masks do, and a count of the passes."""

    def __init__(self, layers):
        self.layers = layers
        self.calls = 0
        self.scratch = np.empty(max(map(len, layers)), layers[0].dtype)

    def scores(self, layer):
        self.calls += 1
        self.scratch[: len(layer)] = layer
        return self.scratch[: len(layer)]

    def drop(self, count, zeros_up_to=0):
        """Marks the scores that `drop_smallest` drops."""
        kept = [np.empty(len(layer), bool) for layer in self.layers]
        drop_smallest([functools.partial(self.scores, layer) for layer in self.layers], kept, count, zeros_up_to)
        return ~np.concatenate(kept)

    @property
    def passes(self):
        return self.calls / len(self.layers)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 20) | st.integers(0, 2**31 - 1), min_size=1, max_size=80), st.data())
def test_exactly_the_smallest_are_dropped_and_of_equal_ones_the_first(values, data):
    count = data.draw(st.integers(0, len(values)))
    scores = np.array(values, "int32")
    np.testing.assert_array_equal(Chunks([scores]).drop(count), expected_drops(scores, count))
    np.testing.assert_array_equal(
        ~drop_smallest_on_device(paddle.to_tensor(scores), count).numpy(), expected_drops(scores, count)
    )


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 5) | st.integers(0, 2**31 - 1), min_size=1, max_size=60), min_size=1, max_size=4),
    st.sampled_from([3.5, 0.0]),
    st.data(),
)
def test_the_bracket_search_is_exact_even_if_the_first_bracket_misses(layers, width, data):
    layers = [np.array(layer, "int32") for layer in layers]
    scores = np.concatenate(layers)
    count = data.draw(st.integers(0, len(scores)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(topk, "PARTITION_SIZE", 15)
        patch.setattr(topk, "BRACKET_WIDTH", width)
        np.testing.assert_array_equal(Chunks(layers).drop(count), expected_drops(scores, count))


@pytest.mark.parametrize(
    ("count", "zeros_up_to", "dropped"),
    [
        (1, 0, [1, 0, 0, 0, 0]),  # the first of two zeros
        (1, 1, [1, 0, 0, 0, 0]),  # two zeros are more than allowed beyond the count
        (1, 2, [1, 0, 1, 0, 0]),
        (0, 2, [1, 0, 1, 0, 0]),
        (3, 2, [1, 1, 1, 0, 0]),
    ],
)
def test_zeros_beyond_the_count_are_dropped_if_they_are_few_enough(count, zeros_up_to, dropped):
    scores = np.array([0, 1, 0, 2, 3], "int32")
    assert Chunks([scores]).drop(count, zeros_up_to).astype(int).tolist() == dropped


@pytest.mark.parametrize("dtype", ["int16", "int32", "int64"])
@pytest.mark.parametrize("count", [1, 30_000, 99_999, 100_000])
def test_scores_of_every_width_are_ranked(dtype, count):
    scores = np.random.randint(0, np.iinfo(dtype).max, 100_000).astype(dtype)
    np.testing.assert_array_equal(Chunks([scores]).drop(count), expected_drops(scores, count))


@pytest.mark.parametrize("count", [1, 40_000, 75_000, 99_999])
@pytest.mark.parametrize(
    "order", [np.sort, lambda scores: np.sort(scores)[::-1], lambda scores: np.tile(scores[:49], 2041)]
)
def test_the_selection_is_exact_for_orders_that_mislead_the_sample(order, count):
    scores = order(np.random.randint(0, 1 << 30, 100_000).astype("int32"))
    np.testing.assert_array_equal(Chunks([scores]).drop(count), expected_drops(scores, count))


@pytest.mark.parametrize("count", [1, 5_000, 10_000])
def test_equal_scores_are_dropped_by_position(count):
    scores = np.full(10_000, 12345, "int32")
    np.testing.assert_array_equal(Chunks([scores]).drop(count), expected_drops(scores, count))


def test_the_threshold_of_many_chunks_is_found_in_three_counting_passes():
    chunks = Chunks(
        [np.abs(scale * np.random.randn(30_000).astype("float32")).view("int32") for scale in (0.01, 1, 3, 0.2)]
    )
    assert chunks.drop(90_000).sum() == 90_000
    # One pass takes the sample, at most three count, one collects the scores in the bracket and one writes the masks.
    assert chunks.passes <= 1 + 3 + 1 + 1


def test_several_million_values_are_exact():
    scores = np.abs(np.random.randn(3_000_000).astype("float32")).view("int32")
    dropped = Chunks(np.split(scores, 3)).drop(2_250_000)
    assert dropped.sum() == 2_250_000
    assert scores[dropped].max() <= scores[~dropped].min()


def test_memory_beyond_the_scores_is_less_than_one_byte_per_value():
    chunks = Chunks([np.abs(np.random.randn(1_000_000).astype("float32")).view("int32") for _ in range(8)])
    tracemalloc.start()
    dropped = chunks.drop(6_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert dropped.sum() == 6_000_000
    assert peak < 3 * 8_000_000 + 8_000_000 / 2  # this test holds the masks three times; the rest is the selection's
