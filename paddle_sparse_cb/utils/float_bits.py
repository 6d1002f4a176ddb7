"""Floating-point magnitudes as integers of the same order, so that comparisons are exact.

The `==` of Paddle 2.6 takes two floats for equal that differ by less than 1e-8, and its vectorised comparisons flush
subnormal numbers to zero. A weight of 1e-9 is not zero, and Paddle-Lite will not take it for one.
"""

from __future__ import annotations

import math
import threading

import numpy as np
import paddle

_INTEGERS = {paddle.float64: "int64", paddle.float32: "int32", paddle.float16: "int16", paddle.bfloat16: "int16"}
_TYPES = {**{floats: np.dtype(name).str for floats, name in _INTEGERS.items()},
          paddle.int64: "=i8", paddle.int32: "=i4", paddle.bool: "|b1"}
_NO_SIGN = {np.dtype(name): np.array(np.iinfo(name).max, name) for name in ("int64", "int32", "int16")}
# So many numbers stay in the cache from one pass over them to the next.
_CHUNK = 1 << 18


def magnitude_bits(values: paddle.Tensor) -> paddle.Tensor:
    """The bits of absolute values: 0 for zeros alone, larger for larger magnitudes, NaN above all.

    Args:
        values: any shape, of a floating-point type.

    Returns:
        Integers of the same shape; of 32 bits for 16-bit floats, for which a CPU has too few operators.
    """
    if values.dtype in (paddle.float16, paddle.bfloat16):
        values = values.astype("float32")
    return values.abs().view(_INTEGERS[values.dtype])


def is_on_host(values: paddle.Tensor) -> bool:
    """Whether numpy can look at a tensor where it is."""
    return bool(values.place.is_cpu_place()) and bool(values.is_contiguous())


class _Memory:
    """What numpy asks for to look at a tensor's memory, and to hold the tensor while it does."""

    def __init__(self, values: paddle.Tensor) -> None:
        self.tensor = values
        self.__array_interface__ = {"version": 3, "data": (values.data_ptr(), False), "typestr": _TYPES[values.dtype],
                                    "shape": (math.prod(values.shape),)}


def host_bits(values: paddle.Tensor) -> np.ndarray:
    """The memory of a tensor on the host, floats as integers: what is written there is in the tensor.

    An operator of Paddle's takes 10 microseconds, and so does a copy to numpy; the layers of a mobile network are so
    small that this was most of the time.

    Args:
        values: `is_on_host`.

    Returns:
        [n], of use while the tensor keeps its `data_ptr()`.
    """
    return np.asarray(_Memory(values))


def split_chunks(array: np.ndarray) -> list[np.ndarray]:
    """Views of an array [n], each small enough for the cache."""
    return [array[start:start + _CHUNK] for start in range(0, len(array), _CHUNK)]


class _Scratch(threading.local):
    """Memory for the magnitudes of a chunk: new memory, a page at a time, takes longer than they do."""

    def __init__(self) -> None:
        self.bytes = np.empty(8 * _CHUNK, np.uint8)


_SCRATCH = _Scratch()


def magnitudes(bits: np.ndarray) -> np.ndarray:
    """The same on the host as `magnitude_bits`, of a chunk of the integers from `host_bits`.

    Returns:
        [n], of use until the next call in this thread.
    """
    scratch = _SCRATCH.bytes[:bits.nbytes].view(bits.dtype)
    return np.bitwise_and(bits, _NO_SIGN[bits.dtype], out=scratch)  # without the sign: -0.0 is a zero


def count_zero_bits(bits: np.ndarray) -> int:
    """How many of the floats that `host_bits` shows as integers are zero."""
    return len(bits) - sum(int(np.count_nonzero(magnitudes(chunk) > 0)) for chunk in split_chunks(bits))
