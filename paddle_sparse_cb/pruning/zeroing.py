"""Sets pruned weights to zero in place, after every optimizer step, and counts those that are not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import paddle

from ..utils.float_bits import host_bits, is_on_host, magnitude_bits, magnitudes, split_chunks


def make_zeroing(tensor: paddle.Tensor, mask: paddle.Tensor) -> Callable[[], None]:
    """Prepares the zeroing of a tensor and returns the call that does it.

    The call is made after every optimizer step, so what stays the same is looked up once. It follows the tensor if its
    memory is replaced.

    Args:
        tensor: any shape, of a floating-point type.
        mask: bool of the same shape, False where the tensor is set to zero.

    Returns:
        A call without arguments, to be made under `paddle.no_grad`. On the host it writes +0.0 whatever was there,
        NaN included.
    """
    if is_on_host(tensor) and is_on_host(mask):
        return make_zeroing_on_host(tensor, mask)
    return make_zeroing_on_device(tensor, mask)


def make_zeroing_on_host(tensor: paddle.Tensor, mask: paddle.Tensor) -> Callable[[], None]:
    """Prepares `make_zeroing` as one pass of NumPy over the bits.

    Paddle's operators would convert the mask to floats first, which takes longer than the pass itself.
    """
    bits, keep = host_bits(tensor), host_bits(mask)
    address, dtype = tensor.data_ptr(), tensor.dtype

    def zero() -> None:
        nonlocal bits, address, dtype
        if tensor.data_ptr() != address or tensor.dtype != dtype:
            bits, address, dtype = host_bits(tensor), tensor.data_ptr(), tensor.dtype
        np.multiply(bits, keep, out=bits)

    return zero


def make_zeroing_on_device(tensor: paddle.Tensor, mask: paddle.Tensor) -> Callable[[], None]:
    """Prepares `make_zeroing` with Paddle operators, so that the tensor stays on its device."""
    # The operators themselves: for a small layer, their Python wrappers take three times as long as they do.
    cast, multiply_ = paddle._C_ops.cast, paddle._C_ops.multiply_

    def zero() -> None:
        multiply_(tensor, cast(mask, tensor.dtype))

    return zero


def count_alive(tensor: paddle.Tensor, mask: paddle.Tensor) -> int:
    """Counts the values that are not zero though a mask prunes them.

    Args:
        tensor: any shape, of a floating-point type.
        mask: bool of the same shape, False where a value is pruned.

    Examples:
        >>> count_alive(paddle.to_tensor([0.0, 1e-45, 3.0]), paddle.to_tensor([False, False, True]))
        1
    """
    if is_on_host(tensor) and is_on_host(mask):
        chunks = zip(split_chunks(host_bits(tensor)), split_chunks(host_bits(mask)))
        return sum(int(np.count_nonzero((magnitudes(bits) != 0) & (keep == 0))) for bits, keep in chunks)
    alive = paddle.logical_and(magnitude_bits(tensor) != 0, paddle.logical_not(mask))
    return int(alive.astype("int64").sum())
