"""Exact selection of the smallest magnitudes, ties broken by position: the hot spot.

On the host it is numpy over the bits of the weights, layer by layer: a histogram of their leading bits tells where the
threshold lies, and a partition of the few weights there finds it. On a device it is Paddle operators, so that the
weights stay there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import paddle

# Buckets of the histogram, as a power of two: the exponent and some bits of the mantissa. About 1% of the weights of a
# trained layer share one. Fewer weights than _SMALL are faster partitioned at once.
_BITS = 13
_SMALL = 1 << 13

Scores = Callable[[], np.ndarray]


def mark_smallest(layers: Sequence[Scores], sizes: Sequence[int], count: int) -> list[np.ndarray]:
    """Marks exactly `count` of the smallest scores over all layers; of equal ones, those that come first.

    Args:
        layers: each gives its scores: integers [units], none negative. They are asked for several times and not
            kept, so that the scores of one layer are in memory at a time.
        sizes: how many scores each layer has.
        count: how many, from 0 to the number of all units.

    Returns:
        For each layer bool [units].
    """
    if count <= 0:
        return [np.zeros(size, dtype=bool) for size in sizes]
    threshold, ties = _threshold(layers, sum(sizes), count)
    marks = []
    for layer in layers:
        scores = layer()
        below = scores < threshold
        if ties:
            first = np.flatnonzero(scores == threshold)[:ties]
            below[first] = True
            ties -= len(first)
        marks.append(below)
    return marks


def _threshold(layers: Sequence[Scores], total: int, count: int) -> tuple[int, int]:
    """The count-th smallest score, and how many of those equal to it belong to the smallest."""
    if total < _SMALL:
        below, inside = 0, np.concatenate([layer() for layer in layers])
    else:
        below, inside = _bucket(layers, count)
    rank = count - below - 1
    inside.partition(rank)
    threshold = inside[rank]
    return int(threshold), rank + 1 - int(np.count_nonzero(inside[:rank] < threshold))


def _bucket(layers: Sequence[Scores], count: int) -> tuple[int, np.ndarray]:
    """The scores that share their leading bits with the count-th smallest, and how many are below all of these."""
    histogram = np.zeros(1 << _BITS, dtype=np.int64)
    for layer in layers:
        scores = layer()
        shift = scores.itemsize * 8 - 1 - _BITS
        histogram += np.bincount(scores >> shift, minlength=1 << _BITS)
    upto = np.cumsum(histogram)
    bucket = int(np.searchsorted(upto, count))
    within = []
    for layer in layers:
        scores = layer()
        # Positions first: twice as fast as indexing with the marks.
        within.append(scores[np.flatnonzero(scores >> shift == bucket)])
    return int(upto[bucket] - histogram[bucket]), np.concatenate(within)


def mark_smallest_on_device(scores: paddle.Tensor, count: int) -> paddle.Tensor:
    """The same for one tensor of scores, where it is.

    Args:
        scores: integers [n], none negative.
        count: from 0 to n.

    Returns:
        Bool [n].
    """
    if count <= 0:
        return paddle.zeros(scores.shape, dtype="bool")
    threshold = paddle.kthvalue(scores, count)[0]
    below = scores < threshold
    ties = scores == threshold
    wanted = count - below.astype("int64").sum()
    return paddle.logical_or(below, paddle.logical_and(ties, paddle.cumsum(ties.astype("int64")) <= wanted))
