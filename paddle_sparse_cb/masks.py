"""Which weights go: exact selection of the smallest, ties broken by position.

The same weights give the same mask on every rank and in every run. All of it is Paddle operators, so that it runs
where the weights are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal

import paddle
import paddle.nn.functional as F

from .bits import magnitude_bits
from .errors import InputError
from .schedule import check_count


def check_block(block: Sequence[int]) -> tuple[int, int]:
    """Returns a block as (rows, columns), or says what is wrong with it."""
    if not isinstance(block, (list, tuple)) or len(block) != 2:
        raise InputError(f"sparse_block is two whole numbers, rows and columns, got {block!r}")
    return check_count("sparse_block", block[0], least=1), check_count("sparse_block", block[1], least=1)


def prune_count(ratio: float, units: int) -> int:
    """How many of `units` are pruned at a ratio: ceil(ratio * units), the ratio taken as the decimal it is written as.

    In floating point 0.07 * 100 is more than 7; as decimals it is 7.

    Example:
        >>> prune_count(0.75, 16), prune_count(0.6, 5), prune_count(0.07, 100)
        (12, 3, 7)
    """
    return math.ceil(Decimal(repr(float(ratio))) * units)


def smallest(scores: paddle.Tensor, count: int) -> paddle.Tensor:
    """Marks exactly `count` of the smallest scores; of equal ones, those that come first.

    Args:
        scores: [n], integers.
        count: from 0 to n.

    Returns:
        Bool [n], True where a score is among the smallest.
    """
    if count <= 0:
        return paddle.zeros(scores.shape, dtype="bool")
    threshold = paddle.kthvalue(scores, count)[0]
    below = scores < threshold
    ties = scores == threshold
    wanted = count - below.astype("int64").sum()
    return paddle.logical_or(below, paddle.logical_and(ties, paddle.cumsum(ties.astype("int64")) <= wanted))


def block_scores(weight: paddle.Tensor, block: tuple[int, int]) -> paddle.Tensor:
    """The L1 norm of each block of a weight, as integers of the same order (`magnitude_bits`).

    Args:
        weight: [rows, ...]; what follows the rows is flattened to columns. For a 1x1 convolution the rows are the
            output channels and the columns the input channels.
        block: rows and columns of a block; an incomplete one at the edge counts as a block.

    Returns:
        [blocks], row by row.
    """
    magnitudes = weight.astype("float32").abs().reshape([weight.shape[0], -1])
    height, width = block
    if (height, width) == (1, 1):
        return magnitude_bits(magnitudes.reshape([-1]))
    rows, columns = magnitudes.shape
    padded = F.pad(magnitudes.reshape([1, 1, rows, columns]), [0, -columns % width, 0, -rows % height])
    tiled = padded.reshape([-(-rows // height), height, -(-columns // width), width])
    return magnitude_bits(tiled.sum(axis=[1, 3]).reshape([-1]))


def spread(marks: paddle.Tensor, shape: Sequence[int], block: tuple[int, int]) -> paddle.Tensor:
    """Turns one mark a block into one a weight: the inverse of `block_scores`.

    Args:
        marks: [blocks], bool.
        shape: the weight's shape.
        block: rows and columns of a block.

    Returns:
        Bool of the weight's shape.
    """
    height, width = block
    if (height, width) == (1, 1):
        return marks.reshape(list(shape))
    rows, columns = shape[0], math.prod(shape[1:])
    grid = marks.reshape([-(-rows // height), 1, -(-columns // width), 1])
    full = grid.expand([-1, height, -1, width]).reshape([grid.shape[0] * height, grid.shape[2] * width])
    return full[:rows, :columns].reshape(list(shape))


def prune(scores: Sequence[paddle.Tensor], ratio: float) -> list[paddle.Tensor]:
    """Chooses what to prune over one ranking of all the scores given: one layer's, or those of all layers.

    What is zero already stays pruned, so that the choice is monotone while the ratio rises and an already sparse
    network loses none of its zeros. The largest score of each layer is kept: Paddle-Lite cannot load a layer of
    zeros.

    Args:
        scores: for each layer [units]: what `block_scores` gives, 0 where a unit is pruned.
        ratio: the share of all units to prune.

    Returns:
        For each layer bool [units], True where a unit is pruned.
    """
    sizes = [score.shape[0] for score in scores]
    guarded = paddle.concat([_guard(score) for score in scores]) if len(scores) > 1 else _guard(scores[0])
    zeros = int((guarded <= 0).astype("int64").sum())
    untrained = zeros >= sum(sizes) - len(sizes)  # nothing but zeros is no ranking: their number means nothing
    count = max(prune_count(ratio, sum(sizes)), 0 if untrained else zeros)
    marks = smallest(guarded, min(count, sum(sizes) - len(sizes)))
    return paddle.split(marks, sizes) if len(sizes) > 1 else [marks]


def _guard(scores: paddle.Tensor) -> paddle.Tensor:
    """Scores whose largest (the last of equal ones) is out of reach."""
    last = scores.shape[0] - 1 - int(paddle.argmax(paddle.flip(scores, [0])))
    guard = F.one_hot(paddle.to_tensor([last], dtype="int64"), scores.shape[0])[0].astype("bool")
    return paddle.where(guard, paddle.full_like(scores, 2**31 - 1), scores)
