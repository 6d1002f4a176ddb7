"""Sparse checkpoints of PaddleSlim's own pruner: its masks, applied to the weights that they lie beside.

PaddleSlim registers a buffer for each parameter and saves it with the weights: beside `conv.weight`, whose parameter
is called `conv2d_7.w_0`, lies `conv.conv2d_7_w_0_mask`. It zeroes weights at the next forward, not after the
optimizer's step, so that what it saves is dense where the masks say zero; and an average of the weights
(PaddleDetection's EMA) has averaged the masks too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import InputError

_MASK = re.compile(r"(?P<layer>(?:.*\.)?)[^.]+_mask")
_PARAMETER = re.compile(r"_([wb]_\d+)_mask$")  # how Paddle calls parameters that are given no name
_OWN = {"w_0": "weight", "b_0": "bias"}


def apply_paddleslim_masks(arrays: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Makes a sparse checkpoint of PaddleSlim's one like any other: zeros where its masks prune, and no masks.

    Args:
        arrays: structured name to array, as `paddle.load(path, return_numpy=True)` gives them.

    Returns:
        The arrays without mask buffers, and the names of those that a mask has zeros for. A checkpoint without
        masks is given back as it is.

    Raises:
        InputError: a mask prunes, but it cannot be told which of several arrays.

    Example:
        >>> weight, mask = np.float32([[0.5, 2.0]]), np.array([[False, True]])
        >>> arrays, masked = apply_paddleslim_masks({"conv.weight": weight, "conv.conv2d_0_w_0_mask": mask})
        >>> arrays["conv.weight"].tolist(), masked
        ([[0.0, 2.0]], ('conv.weight',))
    """
    adopted = dict(arrays)
    masked = []
    for name, values in arrays.items():
        match = _MASK.fullmatch(name)
        if not match or not _is_mask(name, values):
            continue
        owners = [other for other in _beside(match["layer"], arrays)
                  if np.shape(arrays[other]) == values.shape and not _MASK.fullmatch(other)]
        if not owners:  # whatever it is, it is no mask of these weights
            continue
        del adopted[name]
        keep = values > 0.5  # an average of masks
        if keep.all():
            continue
        owner = _owner(owners, name)
        adopted[owner] = np.where(keep, adopted[owner], np.zeros_like(adopted[owner]))
        masked.append(owner)
    return adopted, tuple(masked)


def _is_mask(name: str, values: Any) -> bool:
    """Whether these may be zeros and ones, or averages of such; other things than PaddleSlim's are called masks too."""
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "bf":
        return False
    return values.dtype.kind == "b" or bool(_PARAMETER.search(name) and ((values >= 0) & (values <= 1.001)).all())


def _beside(layer: str, arrays: Mapping[str, Any]) -> list[str]:
    """The names of a layer's own arrays, those of its sublayers left out."""
    return [name for name in arrays if name.startswith(layer) and "." not in name[len(layer):]]


def _owner(owners: list[str], mask: str) -> str:
    """Which array a mask belongs to: the only one of its shape, or the one that its name tells."""
    if len(owners) == 1:
        return owners[0]
    parameter = _PARAMETER.search(mask)
    told = [name for name in owners if parameter and name.rpartition(".")[2] == _OWN.get(parameter[1])]
    if len(told) != 1:
        raise InputError(f"{mask}: a mask that prunes, but of which of {', '.join(owners)}?")
    return told[0]
