"""Masks of the weights to keep: the smallest magnitudes are pruned, exactly as many as the ratio asks for.

Equal weights give equal masks on every rank, in every run and with every version of Paddle: magnitudes are compared as
integers (`float_bits.py`), and ties are broken by position (`topk.py`).
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


def check_block(block: Sequence[int], name: str = "sparse_block") -> tuple[int, int]:
    """Returns a block as (rows, columns), or raises InputError if it is not two positive whole numbers."""
    if not isinstance(block, (list, tuple)) or len(block) != 2:
        raise InputError(f"{name} must be two whole numbers, rows and columns, got {block!r}")
    return check_count(name, block[0], least=1), check_count(name, block[1], least=1)


def prune_count(ratio: float, units: int) -> int:
    """Returns how many of `units` a ratio prunes: ceil(ratio * units), with the ratio as the decimal it is written as.

    As floats 0.07 * 100 is more than 7, as decimals it is 7.

    Args:
        ratio: a Python or NumPy float in [0, 1).
        units: number of weights or blocks.

    Examples:
        >>> prune_count(0.75, 16), prune_count(0.6, 5), prune_count(0.07, 100)
        (12, 3, 7)
    """
    return math.ceil(Decimal(str(ratio)) * units)


def count_units(shape: Sequence[int], block: tuple[int, int]) -> int:
    """Returns the number of blocks of a weight, incomplete ones at the edges included.

    Examples:
        >>> count_units([8, 12, 1, 1], (1, 1)), count_units([7, 5, 1, 1], (2, 4))
        (96, 8)
    """
    return -(-shape[0] // block[0]) * -(-math.prod(shape[1:]) // block[1])


def keep_masks(
    weights: Sequence[paddle.Tensor],
    ratio: float,
    block: tuple[int, int] = (1, 1),
    monotone: bool = True,
    out: Sequence[paddle.Tensor | None] | None = None,
) -> list[paddle.Tensor]:
    """Selects the weights to keep in one ranking over all weights given: those of one layer, or of all layers.

    At least one unit of each weight is kept, because Paddle-Lite cannot load a layer of zeros.

    Args:
        weights: [rows, ...] each. The rows of a convolution are its output channels; the other dimensions are
            flattened to columns.
        ratio: the share of all units to prune.
        block: rows and columns of a unit. The weights of a unit are pruned as one, by their L1 norm.
        monotone: units that are zero stay pruned, even if they are more than the ratio asks for. So a rising ratio
            only ever adds pruned units, and a sparse network loses none of its zeros. Zeros in a block with other
            weights are not kept.
        out: for each weight an earlier mask or None. On the host, earlier masks may be overwritten and returned.

    Returns:
        For each weight a bool tensor of its shape, True where a weight is kept.

    Examples:
        >>> import paddle
        >>> keep_masks([paddle.to_tensor([[0.1, -3.0], [2.0, 0.2]])], 0.5)[0].numpy().tolist()
        [[False, True], [True, False]]
    """
    if all(is_on_host(weight) for weight in weights):
        return keep_masks_on_host(weights, ratio, block, monotone, out)
    return keep_masks_on_device(weights, ratio, block, monotone)


def _prune_limits(ratio: float, units: int, layers: int) -> tuple[int, tuple[int, int]]:
    """Returns how many units to prune, and how many zeros may stay pruned beyond that in a first and a second ranking.

    All leave a unit for each layer. A second ranking finds one zero more in a network of zeros only: it is untrained,
    and its zeros are no choice made earlier.
    """
    most = units - layers
    return min(most, prune_count(ratio, units)), (most, most - 1)


def keep_masks_on_host(
    weights: Sequence[paddle.Tensor],
    ratio: float,
    block: tuple[int, int],
    monotone: bool,
    out: Sequence[paddle.Tensor | None] | None = None,
) -> list[paddle.Tensor]:
    """Computes `keep_masks` with NumPy, for weights whose memory NumPy can access (`is_on_host`).

    Earlier masks are overwritten, because allocating memory takes longer than the ranking.
    """
    units = [count_units(weight.shape, block) for weight in weights]
    if out is None or block != (1, 1):
        out = [None] * len(weights)
    masks = [
        paddle.empty(weight.shape if block == (1, 1) else [size], dtype="bool") if mask is None else mask
        for weight, size, mask in zip(weights, units, out)
    ]
    layers = [_scores(weight, block, alone=len(weights) == 1) for weight in weights]
    keeps = [host_bits(mask) for mask in masks]
    count, limits = _prune_limits(ratio, sum(units), len(units))
    # Only if the first ranking leaves a layer without weights, a second one protects the largest of each layer.
    for protect, zeros_up_to in zip((lambda layer: layer, _protect_largest), limits):
        drop_smallest(
            [chunk for layer in layers for chunk in protect(layer)],
            [part for keep in keeps for part in split_chunks(keep)],
            count,
            zeros_up_to if monotone else 0,
        )
        if len(keeps) == 1 or all(keep.any() for keep in keeps):
            break
    if block == (1, 1):
        return masks
    return [expand_blocks(mask, weight.shape, block) for mask, weight in zip(masks, weights)]


def _scores(weight: paddle.Tensor, block: tuple[int, int], alone: bool) -> list[Scores]:
    """Returns the scores of a layer in chunks, computed anew in each pass unless there is only one chunk."""
    if block != (1, 1):
        scores = host_bits(block_scores(weight, block))
        return [functools.partial(np.copy, chunk) for chunk in split_chunks(scores)]
    chunks = split_chunks(host_bits(weight))
    if alone and len(chunks) == 1:
        only = magnitudes(chunks[0])
        return [lambda: only]
    return [functools.partial(magnitudes, chunk) for chunk in chunks]


def _protect_largest(layer: list[Scores]) -> list[Scores]:
    """Returns the scores of a layer with the largest one (the last of equal ones) raised above all others."""
    largest = [int(chunk().max()) for chunk in layer]
    last = len(largest) - 1 - int(np.argmax(largest[::-1]))

    def protected() -> np.ndarray:
        scores = layer[last]()
        scores[len(scores) - 1 - int(np.argmax(scores[::-1]))] = np.iinfo(scores.dtype).max
        return scores

    return [*layer[:last], protected, *layer[last + 1 :]]


def keep_masks_on_device(
    weights: Sequence[paddle.Tensor], ratio: float, block: tuple[int, int], monotone: bool
) -> list[paddle.Tensor]:
    """Computes `keep_masks` with Paddle operators, so that the weights stay on their device."""
    units = [count_units(weight.shape, block) for weight in weights]
    count, limits = _prune_limits(ratio, sum(units), len(units))
    layers = [block_scores(weight, block) for weight in weights]
    for protect, zeros_up_to in zip((lambda layer: layer, _protect_largest_on_device), limits):  # as on the host
        scores = paddle.concat([protect(layer) for layer in layers])
        zeros = int((scores == 0).astype("int64").sum()) if monotone else 0
        kept = drop_smallest_on_device(scores, max(count, zeros) if zeros <= zeros_up_to else count)
        keeps = paddle.split(kept, units) if len(units) > 1 else [kept]
        if len(units) == 1 or all(bool(keep.any()) for keep in keeps):
            break
    return [expand_blocks(keep, weight.shape, block) for keep, weight in zip(keeps, weights)]


def _protect_largest_on_device(scores: paddle.Tensor) -> paddle.Tensor:
    last = scores.shape[0] - 1 - paddle.argmax(paddle.flip(scores, [0]))
    return paddle.where(
        paddle.arange(scores.shape[0]) == last,
        paddle.full_like(scores, np.iinfo(str(scores.dtype).rsplit(".", 1)[-1]).max),
        scores,
    )


def block_scores(weight: paddle.Tensor, block: tuple[int, int]) -> paddle.Tensor:
    """Returns the L1 norm of each block of a weight, as integers of the same order (see `magnitude_bits`).

    Args:
        weight: [rows, ...]; the other dimensions are flattened to columns.
        block: rows and columns of a block.

    Returns:
        [blocks], row by row.
    """
    if str(weight.dtype).endswith("float16"):  # Paddle has too few operators for 16-bit integers
        weight = weight.astype("float32")
    magnitudes = weight.abs().reshape([weight.shape[0], -1])
    height, width = block
    if (height, width) == (1, 1):
        return magnitude_bits(magnitudes.reshape([-1]))
    rows, columns = magnitudes.shape
    padded = F.pad(magnitudes.reshape([1, 1, rows, columns]), [0, -columns % width, 0, -rows % height])
    tiled = padded.reshape([-(-rows // height), height, -(-columns // width), width])
    return magnitude_bits(tiled.sum(axis=[1, 3]).reshape([-1]))


def expand_blocks(keep: paddle.Tensor, shape: Sequence[int], block: tuple[int, int]) -> paddle.Tensor:
    """Expands one value per block to one value per weight, in the order of `block_scores`.

    Args:
        keep: [blocks], bool.
        shape: shape of the weight.
        block: rows and columns of a block.

    Returns:
        A bool tensor of the weight's shape.
    """
    height, width = block
    if (height, width) == (1, 1):
        return keep.reshape(list(shape))
    rows, columns = shape[0], math.prod(shape[1:])
    grid = keep.reshape([-(-rows // height), 1, -(-columns // width), 1])
    full = grid.expand([-1, height, -1, width]).reshape([grid.shape[0] * height, grid.shape[2] * width])
    return full[:rows, :columns].reshape(list(shape))
