"""Paddle's file of many tensors, `.pdiparams`: one after another, without their names.

Read without Paddle, whose own reader believes a damaged file and ends the interpreter (the layout: Paddle 2.6,
paddle/fluid/framework/lod_tensor.cc and tensor_util.cc).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError
from paddle.base.proto import framework_pb2

from ..errors import InputError

# Paddle's types by number; bfloat16, which numpy does not have, as its bits.
_TYPES = {0: "?", 1: "<i2", 2: "<i4", 3: "<i8", 4: "<f2", 5: "<f4", 6: "<f8", 20: "u1", 21: "i1", 22: "<u2"}


def read_tensors(path: Path, shapes: Iterable[tuple[str, tuple[int, ...]]]) -> dict[str, np.ndarray]:
    """Reads tensors.

    Args:
        path: the file.
        shapes: the name and the shape of each, in the file's order.

    Raises:
        InputError: the file is missing, or holds other tensors.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    content, at, found = path.read_bytes(), 0, {}
    for name, shape in shapes:
        try:
            found[name], at = _tensor(content, at)
        except (struct.error, ValueError, KeyError, OverflowError, DecodeError) as error:
            raise InputError(f"{path}: damaged: cannot read {name}: {type(error).__name__} {error}") from None
        if _without_ones(found[name].shape) != _without_ones(shape):  # in an INT8 model scales are [n] and [1, n]
            raise InputError(f"{path}: damaged, or of another model: {name} has shape {list(found[name].shape)} there, "
                             f"and {list(shape)} in {path.stem}.pdmodel")
    if at != len(content):
        raise InputError(f"{path}: has {len(content) - at} bytes more than the tensors of {path.stem}.pdmodel")
    return found


def _without_ones(shape: tuple[int, ...]) -> list[int]:
    return [size for size in shape if size != 1]


def _tensor(content: bytes, at: int) -> tuple[np.ndarray, int]:
    """A tensor, and where the next one begins."""
    version, levels, inner, size = struct.unpack_from("<IQIi", content, at)
    at += struct.calcsize("<IQIi")
    if version or levels or inner or size < 0:
        raise ValueError("it does not begin as a tensor does")
    details = framework_pb2.VarType.TensorDesc()
    details.ParseFromString(content[at:at + size])
    dtype, shape = np.dtype(_TYPES[details.data_type]), tuple(details.dims)
    count = math.prod(shape)
    if min(shape, default=0) < 0:
        raise ValueError(f"its shape is {list(shape)}")
    array = np.frombuffer(content, dtype, count, at + size).reshape(shape).copy()
    return array, at + size + array.nbytes
