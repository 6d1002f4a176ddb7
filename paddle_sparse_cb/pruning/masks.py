"""Which weights go: the smallest by magnitude, exactly as many as the ratio asks for.

The same weights give the same masks on every rank, in every run and on every version of Paddle: magnitudes are
compared by their bits (`bits.py`), ties are broken by position (`select.py`).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from decimal import Decimal

import numpy as np
import paddle
import paddle.nn.functional as F

from ..errors import InputError
from ..utils.float_bits import host_bits, is_on_host, magnitude_bits, magnitudes, split_chunks
from ..utils.validation import check_count
from .topk import Scores, drop_smallest, drop_smallest_on_device


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
               monotone: bool = True, out: Sequence[paddle.Tensor | None] | None = None) -> list[paddle.Tensor]:
    """Chooses what to prune in one ranking over all the weights given: one layer's, or those of all layers.

    A weight keeps at least one unit: Paddle-Lite cannot load a layer of zeros.

    Args:
        weights: [rows, ...] each. For a convolution the rows are output channels, what follows is flattened to
            columns.
        ratio: the share of all units to prune.
        block: rows and columns of the units that are pruned as one, by their L1 norm.
        monotone: what is zero stays pruned, also beyond the ratio, so that the choice only grows while the ratio
            rises and an already sparse network loses none of its zeros.
        out: an earlier mask of each weight, where there is one; it may be written in place of a new one.

    Returns:
        For each weight bool of its shape, True where a weight lives.

    Example:
        >>> import paddle
        >>> keep_masks([paddle.to_tensor([[0.1, -3.0], [2.0, 0.2]])], 0.5)[0].numpy().tolist()
        [[False, True], [True, False]]
    """
    if all(is_on_host(weight) for weight in weights):
        return _keep_on_host(weights, ratio, block, monotone, out)
    return _keep_on_device(weights, ratio, block, monotone)


def _count(ratio: float, units: int, layers: int) -> tuple[int, int]:
    """How many units to prune of those of so many layers, and up to how many zeros are a choice made earlier.

    Nothing but zeros is an untrained layer and no ranking.
    """
    most = units - layers
    return min(most, prune_count(ratio, units)), most - 1


def _keep_on_host(weights: Sequence[paddle.Tensor], ratio: float, block: tuple[int, int], monotone: bool,
                  out: Sequence[paddle.Tensor | None] | None = None) -> list[paddle.Tensor]:
    """Written into the memory of the masks, of earlier ones if there are any: new memory costs more than ranking."""
    units = [count_units(weight.shape, block) for weight in weights]
    if out is None or block != (1, 1):
        out = [None] * len(weights)
    made = [paddle.empty(weight.shape if block == (1, 1) else [size], dtype="bool") if mask is None else mask
            for weight, size, mask in zip(weights, units, out)]
    layers = [_scores(weight, block, alone=len(weights) == 1) for weight in weights]
    keeps = [host_bits(mask) for mask in made]
    count, zeros_up_to = _count(ratio, sum(units), len(units))
    for guard in (lambda layer: layer, _guarded):
        drop_smallest([chunk for layer in layers for chunk in guard(layer)],
                      [part for keep in keeps for part in split_chunks(keep)], count, zeros_up_to if monotone else 0)
        if len(keeps) == 1 or all(keep.any() for keep in keeps):
            break
    if block == (1, 1):
        return made
    return [spread(mark, weight.shape, block) for mark, weight in zip(made, weights)]


def _scores(weight: paddle.Tensor, block: tuple[int, int], alone: bool) -> list[Scores]:
    """The scores of a layer in chunks, made anew for each pass unless it is but one chunk."""
    if block != (1, 1):
        scores = host_bits(block_scores(weight, block))
        return [functools.partial(np.copy, chunk) for chunk in split_chunks(scores)]
    chunks = split_chunks(host_bits(weight))
    if alone and len(chunks) == 1:
        only = magnitudes(chunks[0])
        return [lambda: only]
    return [functools.partial(magnitudes, chunk) for chunk in chunks]


def _guarded(layer: list[Scores]) -> list[Scores]:
    """A layer's scores with its largest (the last of equal ones) out of reach."""
    largest = [int(chunk().max()) for chunk in layer]
    last = len(largest) - 1 - int(np.argmax(largest[::-1]))

    def guarded() -> np.ndarray:
        made = layer[last]()
        made[len(made) - 1 - int(np.argmax(made[::-1]))] = np.iinfo(made.dtype).max
        return made
    return [*layer[:last], guarded, *layer[last + 1:]]


def _keep_on_device(weights: Sequence[paddle.Tensor], ratio: float, block: tuple[int, int],
                    monotone: bool) -> list[paddle.Tensor]:
    units = [count_units(weight.shape, block) for weight in weights]
    count, zeros_up_to = _count(ratio, sum(units), len(units))
    layers = [block_scores(weight, block) for weight in weights]
    for guard in (lambda layer: layer, _guarded_on_device):
        scores = paddle.concat([guard(layer) for layer in layers])
        zeros = int((scores == 0).astype("int64").sum()) if monotone else 0
        kept = drop_smallest_on_device(scores, max(count, zeros) if zeros <= zeros_up_to else count)
        marks = paddle.split(kept, units) if len(units) > 1 else [kept]
        if len(units) == 1 or all(bool(mark.any()) for mark in marks):
            break
    return [spread(mark, weight.shape, block) for mark, weight in zip(marks, weights)]


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
