"""Checks of arguments and settings. Each message names the argument, the value found and the values allowed."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, did_you_mean


def check_fraction(name: str, value: object, least: float = 0.0) -> float:
    """Returns a ratio as a float, or raises InputError if it is not in [least, 1).

    A NumPy float becomes the float that is written the same: `np.float32(0.07)` becomes 0.07 and not
    0.07000000029802322, which would prune one weight more of 100.

    Args:
        name: the argument's name, for the message.
        value: a real number.
        least: the smallest value allowed.

    Raises:
        InputError: the value is no number or out of range.

    Examples:
        >>> check_fraction("ratio", 75)
        Traceback (most recent call last):
        ...
        paddle_sparse_cb.errors.InputError: ratio must be a fraction from 0.0 to below 1, got 75 (did you mean 0.75?)
    """
    number: Any = value if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    if isinstance(number, np.floating):
        number = float(str(number))
    if least <= number < 1:
        return float(number)
    hint = f" (did you mean {number / 100:g}?)" if 1 < number < 100 else ""
    raise InputError(f"{name} must be a fraction from {least} to below 1, got {_in_one_line(value)}{hint}")


def check_flag(name: str, value: object) -> bool:
    """Returns a bool, or raises InputError if the value is not one."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    raise InputError(f"{name} must be True or False, got {_in_one_line(value)}")


def check_count(name: str, value: object, least: int = 0) -> int:
    """Returns a whole number as an int, or raises InputError if it is not one or below `least`.

    Args:
        name: the argument's name, for the message.
        value: a Python or NumPy integer; bools and floats are rejected.
        least: the smallest value allowed.

    Raises:
        InputError: the value is no whole number or too small.
    """
    if isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least:
        return int(value)
    raise InputError(f"{name} must be a whole number of at least {least}, got {_in_one_line(value)}")


def check_number(name: str, value: object, least: float = 0.0) -> float:
    """Returns a number as a float, or raises InputError if it is not a finite one of at least `least`.

    Args:
        name: the argument's name, for the message.
        value: a real number; bools are rejected.
        least: the smallest value allowed.

    Raises:
        InputError: the value is no number, not finite or too small.
    """
    if isinstance(value, Real) and not isinstance(value, bool) and least <= float(value) < math.inf:
        return float(value)
    raise InputError(f"{name} must be a finite number of at least {least:g}, got {_in_one_line(value)}")


def _in_one_line(value: object) -> str:
    return " ".join(repr(value).split())


def check_path(name: str, value: str | os.PathLike[str]) -> Path:
    """Returns a path, or raises InputError if no file can have it.

    Args:
        name: the argument's name, for the message.
        value: the path.

    Raises:
        InputError: it is no path, or contains NUL.
    """
    if not isinstance(value, (str, os.PathLike)):
        raise InputError(f"{name} must be a path, got {_in_one_line(value)}")
    path = Path(value)
    if "\0" in str(path):
        raise InputError(f"{name} must be a path without NUL, got {str(path)!r}")
    return path


def check_keys(given: Iterable[str], known: Iterable[str], where: str) -> None:
    """Raises InputError for the first unknown key and suggests the nearest known one.

    Args:
        given: the keys found.
        known: the keys allowed.
        where: what has the keys, for the message.

    Raises:
        InputError: a key is not known.

    Examples:
        >>> check_keys(["tuning_epochs"], ["tunning_epochs", "ratio"], "Sparsity")
        Traceback (most recent call last):
        ...
        paddle_sparse_cb.errors.InputError: Sparsity: unknown argument 'tuning_epochs'; did you mean 'tunning_epochs'?
    """
    known = list(known)
    for key in given:
        if key not in known:
            raise InputError(f"{where}: unknown argument {key!r}; {did_you_mean(str(key), known)}")


def check_same(saved: Mapping[str, Any], current: Mapping[str, Any], where: str | Path) -> None:
    """Raises InputError if the settings of a checkpoint differ from those of this run.

    Args:
        saved: the settings of the checkpoint; values may be mappings themselves.
        current: the settings of this run.
        where: the checkpoint's file, for the message.

    Raises:
        InputError: they differ; the message names the first difference and both values.

    Examples:
        >>> check_same({"ratio": 0.75}, {"ratio": 0.85}, "2.pdsparse")
        Traceback (most recent call last):
        ...
        paddle_sparse_cb.errors.InputError: 2.pdsparse: ratio is 0.75 in the checkpoint and 0.85 in this run
    """
    for key in [*current, *(key for key in saved if key not in current)]:
        found, expected = saved.get(key, "missing"), current.get(key, "missing")
        if isinstance(found, Mapping) and isinstance(expected, Mapping):
            check_same(found, expected, f"{where}: {key}")
        elif found != expected:
            raise InputError(
                f"{where}: {key} is {_shortened(found)} in the checkpoint and {_shortened(expected)} in this run"
            )


def _shortened(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 200 else text[:200] + " ..."
