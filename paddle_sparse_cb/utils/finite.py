"""Detects a diverged training before masks or checkpoints are made from its weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import paddle

from ..errors import DivergenceError
from .float_bits import host_bits, is_on_host, magnitudes, split_chunks

_INFINITY_BITS = {paddle.float16: 0x7C00, paddle.bfloat16: 0x7F80}  # NaN has larger ones
_NUMPY_FLOATS = {paddle.float32: np.float32, paddle.float64: np.float64}


def make_finite_check(tensor: paddle.Tensor) -> Callable[[], bool]:
    """Prepares a check of a tensor and returns a call that tells whether all its values are finite.

    The call is made often, so what stays the same is looked up once. It follows the tensor if its memory is replaced.

    Args:
        tensor: any shape, of a floating-point type.
    """
    if not is_on_host(tensor):
        return lambda: bool(paddle.isfinite(tensor).all())
    address, dtype = tensor.data_ptr(), tensor.dtype
    chunks, is_chunk_finite = _chunks_and_check(tensor)

    def is_finite() -> bool:
        nonlocal chunks, is_chunk_finite, address, dtype
        if tensor.data_ptr() != address or tensor.dtype != dtype:
            address, dtype = tensor.data_ptr(), tensor.dtype
            chunks, is_chunk_finite = _chunks_and_check(tensor)
        for chunk in chunks:  # noqa: SIM110  a generator costs as much as the check of a small layer
            if not is_chunk_finite(chunk):
                return False
        return True

    return is_finite


def _chunks_and_check(tensor: paddle.Tensor) -> tuple[list[np.ndarray], Callable[[np.ndarray], Any]]:
    """Returns the memory of a tensor in chunks, and a function that tells whether all of a chunk is finite."""
    chunks = split_chunks(host_bits(tensor))
    if tensor.dtype in _NUMPY_FLOATS:
        return [chunk.view(_NUMPY_FLOATS[tensor.dtype]) for chunk in chunks], lambda chunk: np.isfinite(chunk).all()
    return chunks, lambda chunk: magnitudes(chunk).max() < _INFINITY_BITS[tensor.dtype]


def check_finite(network: paddle.nn.Layer, where: str) -> None:
    """Raises DivergenceError if a parameter of a network, or a running statistic of a batch norm, is not finite.

    Args:
        network: any layer.
        where: what is about to be done with the network, for the message, such as `checkpoint 7`.

    Raises:
        DivergenceError: names the first parameter that is not finite.

    Examples:
        >>> check_finite(paddle.nn.Linear(2, 2), "checkpoint 7")
    """
    for name, parameter in network.named_parameters():
        if paddle.is_floating_point(parameter) and parameter.size and not make_finite_check(parameter)():
            raise DivergenceError(f"{where}: the training diverged: {name} is not finite")


def check_finite_loss(losses: Any, step: int) -> None:
    """Raises DivergenceError if a loss is not finite.

    Args:
        losses: hapi's `logs["loss"]`: floats that are already on the host, or None without a loss function.
        step: completed optimizer steps, for the message.

    Raises:
        DivergenceError: names the losses and the step.

    Examples:
        >>> check_finite_loss([0.7, 1.2], 30)
    """
    values = losses if isinstance(losses, (list, tuple)) else [losses]
    if not all(math.isfinite(value) for value in values if value is not None):
        listed = ", ".join(map(str, values))
        raise DivergenceError(f"the training diverged: the loss is {listed} at optimizer step {step}")
