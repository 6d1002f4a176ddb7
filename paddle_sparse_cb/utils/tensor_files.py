"""Reads `.pdiparams`, Paddle's file of many tensors one after another, without their names.

Paddle's own reader trusts the file and ends the interpreter on a damaged one. The layout is that of Paddle 2.6
(paddle/fluid/framework/lod_tensor.cc and tensor_util.cc).
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

# Paddle's dtypes by number. numpy has no bfloat16, which is read as its bits.
_DTYPES = {0: "?", 1: "<i2", 2: "<i4", 3: "<i8", 4: "<f2", 5: "<f4", 6: "<f8", 20: "u1", 21: "i1", 22: "<u2"}

_MAX_DIMENSIONS = 32  # numpy's limit; the product of a million sizes would take hours

# Version and number of the levels of detail, version of the tensor, size of the description that follows.
_HEADER = "<IQIi"


def read_tensors(path: Path, shapes: Iterable[tuple[str, tuple[int, ...]]]) -> dict[str, np.ndarray]:
    """Reads every tensor of a file.

    Args:
        path: the file.
        shapes: name and shape of each tensor, in the order of the file.

    Returns:
        The tensors by name.

    Raises:
        InputError: the file is missing or damaged, or contains other tensors.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    content, offset, tensors = path.read_bytes(), 0, {}
    for name, shape in shapes:
        try:
            tensors[name], offset = _read_tensor(content, offset)
        except (struct.error, ValueError, KeyError, OverflowError, DecodeError) as error:
            raise InputError(
                f"{path}: damaged, or of another model than {path.stem}.pdmodel: cannot read {name}: "
                f"{type(error).__name__} {error}"
            ) from None
        # The scales of an INT8 model have the shape [n] in the file and [1, n] in the program.
        if _without_ones(tensors[name].shape) != _without_ones(shape):
            raise InputError(
                f"{path}: damaged, or of another model: {name} has shape {list(tensors[name].shape)}, and "
                f"{list(shape)} in {path.stem}.pdmodel"
            )
    if offset != len(content):
        raise InputError(
            f"{path}: damaged, or of another model: {len(content) - offset} bytes after the tensors of "
            f"{path.stem}.pdmodel"
        )
    return tensors


def _without_ones(shape: tuple[int, ...]) -> list[int]:
    return [size for size in shape if size != 1]


def _read_tensor(content: bytes, offset: int) -> tuple[np.ndarray, int]:
    """Returns the tensor at an offset, and the offset of the next one."""
    lod_version, lod_levels, version, size = struct.unpack_from(_HEADER, content, offset)
    offset += struct.calcsize(_HEADER)
    if lod_version or lod_levels or version or size < 0:
        raise ValueError("not the header of a tensor")
    details = framework_pb2.VarType.TensorDesc()
    details.ParseFromString(content[offset : offset + size])
    dtype, shape = np.dtype(_DTYPES[details.data_type]), tuple(details.dims)
    if len(shape) > _MAX_DIMENSIONS or min(shape, default=0) < 0:
        raise ValueError(f"its shape of {len(shape)} dimensions begins with {list(shape[:4])}")
    array = np.frombuffer(content, dtype, math.prod(shape), offset + size).reshape(shape).copy()
    return array, offset + size + array.nbytes
