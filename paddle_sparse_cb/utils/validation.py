"""Checks of arguments, which name the argument, what it got and what it may be."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any

from ..errors import InputError


def check_fraction(name: str, value: object, least: float = 0.0) -> float:
    """Returns a ratio in [least, 1), or says what is wrong with it.

    Example:
        >>> check_fraction("ratio", 75)
        Traceback (most recent call last):
        ...
        paddle_sparse_cb.errors.InputError: ratio is a fraction from 0.0 to below 1, got 75 (did you mean 0.75?)
    """
    number: Any = value if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    if least <= number < 1:
        return float(number)
    hint = f" (did you mean {number / 100:g}?)" if 1 < number < 100 else ""
    raise InputError(f"{name} is a fraction from {least} to below 1, got {value!r}{hint}")


def check_count(name: str, value: object, least: int = 0) -> int:
    """Returns a whole number that is large enough, or says what is wrong with it."""
    if isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least:
        return int(value)
    raise InputError(f"{name} is a whole number of at least {least}, got {value!r}")
