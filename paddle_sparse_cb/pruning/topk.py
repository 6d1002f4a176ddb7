"""Exact selection of the smallest magnitudes with ties broken by position. This is the hot spot of a mask update.

On the host it is NumPy over the bits of the weights, one chunk at a time so that the chunk stays in the cache: a sample
brackets the threshold between two scores (Floyd and Rivest, Expected Time Bounds for Selection, 1975), interpolation
narrows the bracket, and only the few scores inside it are partitioned. On a device it is Paddle operators, so that the
weights stay there.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import paddle

# Up to this many scores are partitioned at once; of more scores, every SAMPLE_STRIDE-th is sampled first. The stride
# is a prime, because the scores of a layer repeat with its number of channels.
PARTITION_SIZE = 1 << 12
SAMPLE_STRIDE = 61
# Half the width of a bracket in standard deviations of a random sample. A bracket that misses the threshold costs
# another pass; the result stays exact.
BRACKET_WIDTH = 3.5

Scores = Callable[[], np.ndarray]


def drop_smallest(chunks: Sequence[Scores], kept: Sequence[np.ndarray], count: int, zeros_up_to: int = 0) -> None:
    """Drops exactly `count` of the smallest scores over all chunks; of equal scores, the first ones.

    Args:
        chunks: each returns the scores of a chunk: integers [n], not negative. They are called once per pass, so that
            only one chunk is in memory; a call may overwrite the array of the call before.
        kept: for each chunk a bool array [n], which is written: False where a score is dropped.
        count: number of scores to drop, from 0 to the number of all scores.
        zeros_up_to: if all zeros are no more than this, all of them are dropped, even if they are more than `count`.
    """
    threshold, ties, equals = _threshold(chunks, sum(len(keep) for keep in kept), max(count, 1))
    if threshold == 0 and equals <= zeros_up_to:
        ties = equals
    elif count == 0:
        threshold = -1
    for chunk, keep in zip(chunks, kept):
        scores = chunk()
        np.greater(scores, threshold, out=keep)
        if ties < equals:
            equal = np.flatnonzero(scores == threshold)
            keep[equal[ties:]] = True
            ties, equals = max(0, ties - len(equal)), equals - len(equal)


def _threshold(chunks: Sequence[Scores], total: int, count: int) -> tuple[int, int, int]:
    """Returns the count-th smallest score, how many scores equal to it are dropped, and how many are equal to it."""
    if total <= PARTITION_SIZE:
        return _threshold_in_memory([chunk().copy() for chunk in chunks], count)
    low, high, (first, last) = _bracket_by_sample(chunks, total, count)
    # The scores from `low` to `high` have the ranks below + 1 to upto, and the wanted rank is one of them.
    below, upto = 0, total
    for turn in itertools.count(1):
        if low == high or upto - below <= total >> 5:
            break
        if (first, last) == (low, high) or turn % 4 == 0:  # bisection, which works for any distribution
            first = last = (low + high) // 2
        under, through = _count_ranks(chunks, first, last)
        if count <= under:
            high, upto = first - 1, under
        elif count > through:
            low, below = last + 1, through
        else:
            low, high, below, upto = first, last, under, through
        first, last = _bracket_by_interpolation(low, high, (count - below) / (upto - below), upto - below)
    if low == high:
        return low, count - below, upto - below
    return _threshold_in_memory([_between(chunk(), low, high) for chunk in chunks], count - below)


def _bracket_by_sample(chunks: Sequence[Scores], total: int, count: int) -> tuple[int, int, tuple[int, int]]:
    """Returns the range of the scores' type, and two scores that probably enclose the count-th smallest."""
    sample = np.concatenate([chunk()[SAMPLE_STRIDE // 2 :: SAMPLE_STRIDE].copy() for chunk in chunks])
    middle, width = _expected_rank(count / total, len(sample))
    first, last = int(middle - width), int(middle + width)
    sample.partition([max(first, 0), min(last, len(sample) - 1)])
    most = (1 << (8 * sample.itemsize - 1)) - 1
    return 0, most, (0 if first < 0 else int(sample[first]), most if last >= len(sample) else int(sample[last]))


def _expected_rank(share: float, size: int) -> tuple[float, float]:
    """Returns the expected rank of a quantile in a sample, and how far the rank may be off."""
    return share * size, BRACKET_WIDTH * math.sqrt(size * share * (1 - share)) + 1


def _bracket_by_interpolation(low: int, high: int, share: float, size: int) -> tuple[int, int]:
    """Returns two scores that enclose a quantile if the scores between `low` and `high` are spread evenly."""
    middle, width = _expected_rank(share, size)
    width += size / 64  # a margin, because they are not quite even
    step = (high - low) / size
    return low + max(0, int((middle - width) * step)), min(high, low + int((middle + width) * step))


def _count_ranks(chunks: Sequence[Scores], low: int, high: int) -> tuple[int, int]:
    """Counts the scores below `low`, and those up to and including `high`."""
    below = upto = 0
    for chunk in chunks:
        scores = chunk()
        below += int(np.count_nonzero(scores < low))
        upto += int(np.count_nonzero(scores <= high))
    return below, upto


def _between(scores: np.ndarray, low: int, high: int) -> np.ndarray:
    inside = scores >= low
    inside &= scores <= high
    return scores[np.flatnonzero(inside)]  # faster than indexing with the bools


def _threshold_in_memory(parts: list[np.ndarray], count: int) -> tuple[int, int, int]:
    """Computes what `_threshold` does, for scores that are all in memory."""
    scores = np.concatenate(parts)
    scores.partition(count - 1)
    threshold = scores[count - 1]
    # Equal scores may be on both sides of the rank.
    ties = 1 + int(np.count_nonzero(scores[: count - 1] == threshold))
    return int(threshold), ties, ties + int(np.count_nonzero(scores[count:] == threshold))


def drop_smallest_on_device(scores: paddle.Tensor, count: int) -> paddle.Tensor:
    """Drops exactly `count` of the smallest scores of a tensor with Paddle operators; of equal scores, the first ones.

    Args:
        scores: integers [n], not negative.
        count: number of scores to drop, from 0 to n.

    Returns:
        Bool [n], False where a score is dropped.
    """
    if count <= 0:
        return paddle.ones(scores.shape, dtype="bool")
    threshold = paddle.kthvalue(scores, count)[0]
    above = scores > threshold
    ties = scores == threshold
    dropped_ties = count - (scores < threshold).astype("int64").sum()
    return paddle.logical_or(above, paddle.logical_and(ties, paddle.cumsum(ties.astype("int64")) > dropped_ties))
