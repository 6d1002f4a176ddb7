"""Floating-point magnitudes as integers of the same order, so that comparisons are exact.

The `==` of Paddle 2.6 takes two floats for equal that differ by less than 1e-8, and its vectorised comparisons flush
subnormal numbers to zero. A weight of 1e-9 is not zero, and Paddle-Lite will not take it for one.
"""

from __future__ import annotations

import numpy as np
import paddle

_INTEGERS = {"float64": "int64", "float32": "int32", "float16": "int16", "bfloat16": "int16"}


def magnitude_bits(values: paddle.Tensor) -> paddle.Tensor:
    """The bits of absolute values: 0 for zeros alone, larger for larger magnitudes, NaN above all.

    Args:
        values: any shape, of a floating-point type.

    Returns:
        Integers of the same shape and width.
    """
    return values.abs().view(_INTEGERS[str(values.dtype).rsplit(".", 1)[-1]])


def host_magnitude_bits(values: paddle.Tensor) -> np.ndarray:
    """The same on the host, for a tensor that is there.

    Returns:
        A new array of the tensor's shape.
    """
    array = values.numpy()  # a copy
    bits = array.view(f"i{array.itemsize}")
    return np.bitwise_and(bits, np.iinfo(bits.dtype).max, out=bits)  # without the sign: -0.0 is a zero
