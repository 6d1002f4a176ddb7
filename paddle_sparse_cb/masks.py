"""Which weights go: the smallest by magnitude, exactly as many as the ratio asks for.

The same weights give the same masks on every rank, in every run and on every version of Paddle: magnitudes are
compared by their bits (`bits.py`), ties are broken by position (`select.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F

from .bits import host_magnitude_bits, magnitude_bits
from .checks import check_count
from .errors import InputError
from .select import mark_smallest, mark_smallest_on_device


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


def count_units(shape: Sequence[int], block: tuple[int, int]) -> int:
    """How many blocks a weight has; an incomplete one at the edge counts.

    Example:
        >>> count_units([8, 12, 1, 1], (1, 1)), count_units([7, 5, 1, 1], (2, 4))
        (96, 8)
    """
    return -(-shape[0] // block[0]) * -(-math.prod(shape[1:]) // block[1])


def keep_masks(weights: Sequence[paddle.Tensor], ratio: float, block: tuple[int, int] = (1, 1),
               monotone: bool = True) -> list[paddle.Tensor]:
    """Chooses what to prune in one ranking over all the weights given: one layer's, or those of all layers.

    A weight keeps at least one unit: Paddle-Lite cannot load a layer of zeros.

    Args:
        weights: [rows, ...] each. For a convolution the rows are output channels, what follows is flattened to
            columns.
        ratio: the share of all units to prune.
        block: rows and columns of the units that are pruned as one, by their L1 norm.
        monotone: what is zero stays pruned, also beyond the ratio, so that the choice only grows while the ratio
            rises and an already sparse network loses none of its zeros.

    Returns:
        For each weight bool of its shape, True where a weight lives.

    Example:
        >>> import paddle
        >>> keep_masks([paddle.to_tensor([[0.1, -3.0], [2.0, 0.2]])], 0.5)[0].numpy().tolist()
        [[False, True], [True, False]]
    """
    if not all(weight.place.is_cpu_place() for weight in weights):
        marks = _marks_on_device(weights, ratio, block, monotone)
        return [spread(paddle.logical_not(mark), weight.shape, block) for mark, weight in zip(marks, weights)]
    kept: list[Any] = _marks_on_host(weights, ratio, block, monotone)
    for index, weight in enumerate(weights):  # in place, so that not two masks of each weight are in memory
        keep = np.logical_not(kept[index], out=kept[index])
        if block == (1, 1):  # without an operator, which takes as long as the copy
            kept[index] = paddle.to_tensor(keep.reshape(weight.shape))
        else:
            kept[index] = spread(paddle.to_tensor(keep), weight.shape, block)
    return kept


def _count(ratio: float, units: int, layers: int, zeros: int) -> int:
    """How many units to prune of those of so many layers, so many of them zero already."""
    most = units - layers
    # Nothing but zeros is an untrained layer and no ranking: how many there are means nothing.
    return min(most, max(prune_count(ratio, units), zeros if zeros < most else 0))


def _marks_on_host(weights: Sequence[paddle.Tensor], ratio: float, block: tuple[int, int],
                   monotone: bool) -> list[np.ndarray]:
    units = [count_units(weight.shape, block) for weight in weights]
    layers = [_host_scores(weight, block) for weight in weights]
    if len(layers) == 1:  # one layer fits in memory; of several the scores are made anew for each pass
        only = layers[0]()
        layers = [lambda: only]
    zeros = sum(size - np.count_nonzero(layer()) for size, layer in zip(units, layers)) if monotone else 0
    count = _count(ratio, sum(units), len(units), zeros)
    marks = mark_smallest(layers, units, count)
    if len(layers) > 1 and any(mark.all() for mark in marks):
        marks = mark_smallest([_guarded(layer) for layer in layers], units, count)
    return marks


def _host_scores(weight: paddle.Tensor, block: tuple[int, int]) -> Callable[[], np.ndarray]:
    def scores() -> np.ndarray:
        if block != (1, 1):
            return block_scores(weight, block).numpy()
        return host_magnitude_bits(weight).reshape(-1)
    return scores


def _guarded(scores: Callable[[], np.ndarray]) -> Callable[[], np.ndarray]:
    """Scores whose largest (the last of equal ones) is out of reach."""
    def guarded() -> np.ndarray:
        made = scores()
        made[len(made) - 1 - int(np.argmax(made[::-1]))] = np.iinfo(made.dtype).max
        return made
    return guarded


def _marks_on_device(weights: Sequence[paddle.Tensor], ratio: float, block: tuple[int, int],
                     monotone: bool) -> list[paddle.Tensor]:
    units = [count_units(weight.shape, block) for weight in weights]
    layers = [block_scores(weight, block) for weight in weights]
    zeros = int(paddle.add_n([(layer == 0).astype("int64").sum() for layer in layers])) if monotone else 0
    scores = paddle.concat([_guarded_on_device(layer) for layer in layers])
    marks = mark_smallest_on_device(scores, _count(ratio, sum(units), len(units), zeros))
    return paddle.split(marks, units) if len(units) > 1 else [marks]


def _guarded_on_device(scores: paddle.Tensor) -> paddle.Tensor:
    last = scores.shape[0] - 1 - paddle.argmax(paddle.flip(scores, [0]))
    return paddle.where(paddle.arange(scores.shape[0]) == last,
                        paddle.full_like(scores, np.iinfo(str(scores.dtype).rsplit(".", 1)[-1]).max), scores)


def block_scores(weight: paddle.Tensor, block: tuple[int, int]) -> paddle.Tensor:
    """The L1 norm of each block of a weight, as integers of the same order (`magnitude_bits`).

    Args:
        weight: [rows, ...]; what follows the rows is flattened to columns.
        block: rows and columns of a block.

    Returns:
        [blocks], row by row.
    """
    if str(weight.dtype).endswith("float16"):  # its integers are too short for Paddle's operators
        weight = weight.astype("float32")
    magnitudes = weight.abs().reshape([weight.shape[0], -1])
    height, width = block
    if (height, width) == (1, 1):
        return magnitude_bits(magnitudes.reshape([-1]))
    rows, columns = magnitudes.shape
    padded = F.pad(magnitudes.reshape([1, 1, rows, columns]), [0, -columns % width, 0, -rows % height])
    tiled = padded.reshape([-(-rows // height), height, -(-columns // width), width])
    return magnitude_bits(tiled.sum(axis=[1, 3]).reshape([-1]))


def spread(marks: paddle.Tensor, shape: Sequence[int], block: tuple[int, int]) -> paddle.Tensor:
    """Turns one mark a unit into one a weight: the inverse of `block_scores`.

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
