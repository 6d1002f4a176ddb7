"""Floating-point magnitudes as integers of the same order, so that comparisons are exact.

Paddle 2.6's `==` treats two floats that differ by less than 1e-8 as equal, and its vectorised comparisons flush
subnormal numbers to zero. A weight of 1e-9 is not zero, and Paddle-Lite does not treat it as zero.
"""

from __future__ import annotations

import math
import threading

import numpy as np
import paddle

# Elements of a chunk: few enough that it stays in the cache from one pass to the next.
CHUNK_SIZE = 1 << 18

_INTEGERS = {paddle.float64: "int64", paddle.float32: "int32", paddle.float16: "int16", paddle.bfloat16: "int16"}
_TYPESTRS = {
    **{floats: np.dtype(name).str for floats, name in _INTEGERS.items()},
    paddle.int64: "=i8",
    paddle.int32: "=i4",
    paddle.bool: "|b1",
}
# All bits but the sign, by integer type.
_MAGNITUDE = {np.dtype(name): np.array(np.iinfo(name).max, name) for name in ("int64", "int32", "int16")}


def magnitude_bits(values: paddle.Tensor) -> paddle.Tensor:
    """Returns the bits of absolute values: 0 for zeros only, larger for larger magnitudes, largest for NaN.

    Args:
        values: any shape, of a floating-point type.

    Returns:
        Integers of the same shape. For 16-bit floats they have 32 bits, because Paddle has too few 16-bit operators
        on a CPU.
    """
    if values.dtype in (paddle.float16, paddle.bfloat16):
        values = values.astype("float32")
    return values.abs().view(_INTEGERS[values.dtype])


def is_on_host(values: paddle.Tensor) -> bool:
    """Returns whether NumPy can access a tensor's memory: it is on the CPU and contiguous."""
    return bool(values.place.is_cpu_place()) and bool(values.is_contiguous())


class _TensorMemory:
    """NumPy's array interface to the memory of a tensor, which it keeps alive."""

    def __init__(self, values: paddle.Tensor) -> None:
        self.tensor = values
        self.__array_interface__ = {
            "version": 3,
            "data": (values.data_ptr(), False),
            "typestr": _TYPESTRS[values.dtype],
            "shape": (math.prod(values.shape),),
        }


def host_bits(values: paddle.Tensor) -> np.ndarray:
    """Returns the memory of a tensor on the host as an array, floats as integers, without a copy.

    Writing to the array writes to the tensor. A Paddle operator takes 10 microseconds, and so does a copy to NumPy:
    most of the time for the small layers of a mobile network.

    Args:
        values: any shape; `is_on_host` must be true.

    Returns:
        [n], valid as long as the tensor keeps its `data_ptr()`.
    """
    return np.asarray(_TensorMemory(values))


def split_chunks(array: np.ndarray) -> list[np.ndarray]:
    """Splits an array [n] into views of at most `CHUNK_SIZE` elements."""
    return [array[start : start + CHUNK_SIZE] for start in range(0, len(array), CHUNK_SIZE)]


class _Scratch(threading.local):
    """Memory for the magnitudes of a chunk, reused: allocating it takes longer than computing them."""

    def __init__(self) -> None:
        self.bytes = np.empty(8 * CHUNK_SIZE, np.uint8)


_SCRATCH = _Scratch()


def magnitudes(bits: np.ndarray) -> np.ndarray:
    """Computes what `magnitude_bits` does, on the host, for a chunk of `host_bits`.

    Args:
        bits: integers [n] with at most `CHUNK_SIZE` elements.

    Returns:
        [n], valid until the next call in this thread.
    """
    scratch = _SCRATCH.bytes[: bits.nbytes].view(bits.dtype)
    return np.bitwise_and(bits, _MAGNITUDE[bits.dtype], out=scratch)  # clears the sign: -0.0 is a zero


def count_zero_bits(bits: np.ndarray) -> int:
    """Counts the floats that are zero, given as integers by `host_bits`."""
    return len(bits) - sum(int(np.count_nonzero(magnitudes(chunk) > 0)) for chunk in split_chunks(bits))
