"""`apply_paddleslim_masks`: turns a sparse checkpoint of PaddleSlim's own pruner into a plain one.

PaddleSlim registers a mask as a buffer for each parameter and saves it with the weights: beside `conv.weight`, whose
parameter is named `conv2d_7.w_0`, the checkpoint has `conv.conv2d_7_w_0_mask`. PaddleSlim applies masks before the next
forward pass and not after the optimizer step, so the weights it saves are not zero where the masks prune them. In a
checkpoint of averaged weights (PaddleDetection's EMA), the masks are averaged too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import InputError

_MASK_NAME = re.compile(r"(?P<layer>(?:.*\.)?)[^.]+_mask")
_DEFAULT_PARAMETER = re.compile(r"_([wb]_\d+)_mask$")  # Paddle's names for parameters that are given none
_STRUCTURED_NAMES = {"w_0": "weight", "b_0": "bias"}


def apply_paddleslim_masks(arrays: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Sets the weights of a PaddleSlim checkpoint to zero where its masks prune them, and removes the masks.

    Args:
        arrays: structured name to array, as returned by `paddle.load(path, return_numpy=True)`.

    Returns:
        The arrays without mask buffers, and the names of the arrays that a mask prunes. A
        checkpoint without masks is returned unchanged.

    Raises:
        InputError: a mask prunes, but several arrays could belong to it.

    Examples:
        >>> weight, mask = np.float32([[0.5, 2.0]]), np.array([[False, True]])
        >>> arrays, masked = apply_paddleslim_masks({"conv.weight": weight, "conv.conv2d_0_w_0_mask": mask})
        >>> arrays["conv.weight"].tolist(), masked
        ([[0.0, 2.0]], ('conv.weight',))
    """
    applied = dict(arrays)
    masked = []
    for name, values in arrays.items():
        match = _MASK_NAME.fullmatch(name)
        if not match or not _is_mask(name, values):
            continue
        candidates = [
            other
            for other in _arrays_of_layer(match["layer"], arrays)
            if np.shape(arrays[other]) == values.shape and not _MASK_NAME.fullmatch(other)
        ]
        if not candidates:  # not a mask of these weights
            continue
        del applied[name]
        keep = values > 0.5  # also for an average of masks
        if keep.all():
            continue
        owner = _owner(candidates, name)
        applied[owner] = np.where(keep, applied[owner], np.zeros_like(applied[owner]))
        masked.append(owner)
    return applied, tuple(masked)


def _is_mask(name: str, values: Any) -> bool:
    """Returns whether an array can be a mask of PaddleSlim: bools, or floats from 0 to 1 under PaddleSlim's name.

    Other arrays are named `*_mask` too, such as attention masks.
    """
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "bf":
        return False
    if values.dtype.kind == "b":
        return True
    return bool(_DEFAULT_PARAMETER.search(name) and ((values >= 0) & (values <= 1.001)).all())


def _arrays_of_layer(layer: str, arrays: Mapping[str, Any]) -> list[str]:
    """Returns the names of a layer's own arrays, without those of its sublayers."""
    return [name for name in arrays if name.startswith(layer) and "." not in name[len(layer) :]]


def _owner(candidates: list[str], mask: str) -> str:
    """Returns the array that a mask belongs to: the only one of its shape, or the one that its name refers to."""
    if len(candidates) == 1:
        return candidates[0]
    parameter = _DEFAULT_PARAMETER.search(mask)
    named = [
        name for name in candidates if parameter and name.rpartition(".")[2] == _STRUCTURED_NAMES.get(parameter[1])
    ]
    if len(named) != 1:
        raise InputError(f"{mask}: this mask prunes, but it may belong to any of {', '.join(candidates)}")
    return named[0]
