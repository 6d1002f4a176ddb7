"""A training that has diverged: said as soon as it can be known, before masks or checkpoints are made of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import paddle

from ..errors import DivergenceError
from .float_bits import host_bits, is_on_host, magnitudes, split_chunks

_INFINITY = {paddle.float16: 0x7C00, paddle.bfloat16: 0x7F80}  # the bits; NaN is above
_FLOATS = {paddle.float32: np.float32, paddle.float64: np.float64}


def make_finite_check(tensor: paddle.Tensor) -> Callable[[], bool]:
    """Looks up once what it takes to tell whether a tensor is finite, and returns the call that does.

    Args:
        tensor: any shape, of a floating-point type.
    """
    if not is_on_host(tensor):
        return lambda: bool(paddle.isfinite(tensor).all())
    address, dtype = tensor.data_ptr(), tensor.dtype
    chunks, known = _to_look_at(tensor)

    def finite() -> bool:
        nonlocal chunks, known, address, dtype
        if tensor.data_ptr() != address or tensor.dtype != dtype:  # it has been given other memory
            address, dtype = tensor.data_ptr(), tensor.dtype
            chunks, known = _to_look_at(tensor)
        for chunk in chunks:  # noqa: SIM110  a generator costs as much as a small layer does
            if not known(chunk):
                return False
        return True
    return finite


def _to_look_at(tensor: paddle.Tensor) -> tuple[list[np.ndarray], Callable[[np.ndarray], Any]]:
    """A tensor's memory in chunks, and what tells whether all of a chunk is finite."""
    chunks = split_chunks(host_bits(tensor))
    if tensor.dtype in _FLOATS:
        return [chunk.view(_FLOATS[tensor.dtype]) for chunk in chunks], lambda chunk: np.isfinite(chunk).all()
    return chunks, lambda chunk: magnitudes(chunk).max() < _INFINITY[tensor.dtype]


def check_finite(network: paddle.nn.Layer, where: str) -> None:
    """Makes sure that a network is worth keeping: its parameters, the running statistics of batch norms among them.

    Args:
        network: any layer.
        where: what was about to be done with it, for the message: `checkpoint 7`.

    Raises:
        DivergenceError: names the first parameter that is not finite.

    Example:
        >>> check_finite(paddle.nn.Linear(2, 2), "checkpoint 7")
    """
    for name, parameter in network.named_parameters():
        if paddle.is_floating_point(parameter) and parameter.size and not make_finite_check(parameter)():
            raise DivergenceError(f"{where}: the training diverged: {name} is not finite")


def check_finite_loss(losses: Any, step: int) -> None:
    """Makes sure that a batch had a loss.

    Args:
        losses: hapi's `logs["loss"]`, floats that are already on the host; None if there is none.
        step: optimizer steps done.

    Raises:
        DivergenceError: one of them is not finite.

    Example:
        >>> check_finite_loss([0.7, 1.2], 30)
    """
    values = losses if isinstance(losses, (list, tuple)) else [losses]
    if not all(math.isfinite(value) for value in values if value is not None):
        raise DivergenceError(f"the training diverged: the loss is {', '.join(map(str, values))} at optimizer step {step}")
