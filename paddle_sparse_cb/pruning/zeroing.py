"""Zeroes in place what masks prune: what is done after every step."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import paddle

from ..utils.float_bits import host_bits, is_on_host


def zeroing(tensor: paddle.Tensor, mask: paddle.Tensor) -> Callable[[], None]:
    """Looks up once what it takes to zero a tensor, and returns the call that does.

    Args:
        tensor: any shape, of a floating-point type.
        mask: bool of the same shape, False where the tensor is to be zero.

    Returns:
        A call without arguments, to be made under `paddle.no_grad`. On the host what it writes is +0.0, whatever was
        there, NaN included.
    """
    return _on_host(tensor, mask) if is_on_host(tensor) and is_on_host(mask) else _on_device(tensor, mask)


def _on_host(tensor: paddle.Tensor, mask: paddle.Tensor) -> Callable[[], None]:
    """One pass over the bits; Paddle's operators would make a float mask first, and cost more than the pass does."""
    bits, keep = host_bits(tensor), host_bits(mask)
    address, dtype = tensor.data_ptr(), tensor.dtype

    def zero() -> None:
        nonlocal bits, address, dtype
        if tensor.data_ptr() != address or tensor.dtype != dtype:  # it has been given other memory
            bits, address, dtype = host_bits(tensor), tensor.data_ptr(), tensor.dtype
        np.multiply(bits, keep, out=bits)
    return zero


def _on_device(tensor: paddle.Tensor, mask: paddle.Tensor) -> Callable[[], None]:
    # The operators themselves: their Python wrappers take three times as long as they do on a small layer.
    cast, multiply_ = paddle._C_ops.cast, paddle._C_ops.multiply_

    def zero() -> None:
        multiply_(tensor, cast(mask, tensor.dtype))
    return zero
