"""Exact selection of the smallest magnitudes, ties broken by position: the hot spot.

On the host it is numpy over the bits of the weights, a chunk at a time so that it stays in the cache. A sample tells
between which two scores the threshold lies (Floyd and Rivest, Expected Time Bounds for Selection, 1975), interpolation
narrows that down, and only the few scores left between are partitioned. On a device it is Paddle operators, so that
the weights stay there.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import paddle

# Up to so many scores are partitioned at once; of more, each 61st is looked at first. A prime, since the scores of a
# layer repeat with its number of channels.
_SMALL = 1 << 12
_STRIDE = 61
# How far a bracket reaches to both sides, in standard deviations of a random sample. One that misses costs a pass, not
# exactness.
_WIDTH = 3.5

Scores = Callable[[], np.ndarray]


def drop_smallest(chunks: Sequence[Scores], kept: Sequence[np.ndarray], count: int, zeros_up_to: int = 0) -> None:
    """Drops exactly `count` of the smallest scores over all chunks; of equal ones, those that come first.

    Args:
        chunks: each gives its scores: integers [units], none negative. They are asked for several times, so that the
            scores of one chunk are in memory at a time; the next may be written over them.
        kept: for each chunk bool [units], which is written: False for what is dropped.
        count: how many, from 0 to the number of all units.
        zeros_up_to: zeros beyond the count are dropped as well, all of them, if they are no more than this.
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
    """The count-th smallest score, how many of those equal to it are to be dropped, and how many those are."""
    if total <= _SMALL:
        return _ranked([chunk().copy() for chunk in chunks], count)
    low, high, (first, last) = _sampled(chunks, total, count)
    below, upto = 0, total
    # Those from low to high are the ranks below + 1 to upto, the wanted one among them.
    for turn in itertools.count(1):
        if low == high or upto - below <= total >> 5:
            break
        if (first, last) == (low, high) or turn % 4 == 0:  # whatever the scores are, this halves their range
            first = last = (low + high) // 2
        under, through = _counted(chunks, first, last)
        if count <= under:
            high, upto = first - 1, under
        elif count > through:
            low, below = last + 1, through
        else:
            low, high, below, upto = first, last, under, through
        first, last = _interpolated(low, high, (count - below) / (upto - below), upto - below)
    if low == high:
        return low, count - below, upto - below
    return _ranked([_between(chunk(), low, high) for chunk in chunks], count - below)


def _sampled(chunks: Sequence[Scores], total: int, count: int) -> tuple[int, int, tuple[int, int]]:
    """The range of the scores' type, and two scores that the count-th smallest is likely to lie between."""
    sample = np.concatenate([chunk()[_STRIDE // 2::_STRIDE].copy() for chunk in chunks])
    middle, width = _spread(count / total, len(sample))
    first, last = int(middle - width), int(middle + width)
    sample.partition([max(first, 0), min(last, len(sample) - 1)])
    most = (1 << (8 * sample.itemsize - 1)) - 1
    return 0, most, (0 if first < 0 else int(sample[first]), most if last >= len(sample) else int(sample[last]))


def _spread(share: float, size: int) -> tuple[float, float]:
    """The expected rank of a share in a sample, and how far it may be off."""
    return share * size, _WIDTH * math.sqrt(size * share * (1 - share)) + 1


def _interpolated(low: int, high: int, share: float, size: int) -> tuple[int, int]:
    """Two scores around where the share lies if the scores between low and high are spread evenly."""
    middle, width = _spread(share, size)
    width += size / 64  # they are not quite
    step = (high - low) / size
    return low + max(0, int((middle - width) * step)), min(high, low + int((middle + width) * step))


def _counted(chunks: Sequence[Scores], low: int, high: int) -> tuple[int, int]:
    """How many scores are below `low`, and how many up to `high`."""
    below = upto = 0
    for chunk in chunks:
        scores = chunk()
        below += int(np.count_nonzero(scores < low))
        upto += int(np.count_nonzero(scores <= high))
    return below, upto


def _between(scores: np.ndarray, low: int, high: int) -> np.ndarray:
    inside = scores >= low
    inside &= scores <= high
    return scores[np.flatnonzero(inside)]  # positions first: faster than indexing with the marks


def _ranked(parts: list[np.ndarray], count: int) -> tuple[int, int, int]:
    """The same as `_threshold`, of scores in memory."""
    scores = np.concatenate(parts)
    scores.partition(count - 1)
    threshold = scores[count - 1]
    # What is equal is on both sides of the rank.
    ties = 1 + int(np.count_nonzero(scores[:count - 1] == threshold))
    return int(threshold), ties, ties + int(np.count_nonzero(scores[count:] == threshold))


def drop_smallest_on_device(scores: paddle.Tensor, count: int) -> paddle.Tensor:
    """The same for one tensor of scores, where it is.

    Args:
        scores: integers [n], none negative.
        count: from 0 to n.

    Returns:
        Bool [n], False for what is dropped.
    """
    if count <= 0:
        return paddle.ones(scores.shape, dtype="bool")
    threshold = paddle.kthvalue(scores, count)[0]
    above = scores > threshold
    ties = scores == threshold
    wanted = count - (scores < threshold).astype("int64").sum()
    return paddle.logical_or(above, paddle.logical_and(ties, paddle.cumsum(ties.astype("int64")) > wanted))
