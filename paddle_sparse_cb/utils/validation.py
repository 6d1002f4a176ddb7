"""Checks of arguments, which name the argument, what it got and what it may be."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from ..errors import InputError, did_you_mean


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


def check_keys(given: Iterable[str], known: Iterable[str], where: str) -> None:
    """Raises InputError for the first unknown key, with the nearest known one.

    Example:
        >>> check_keys(["tuning_epochs"], ["tunning_epochs", "ratio"], "SparsityCallback")
        Traceback (most recent call last):
        ...
        paddle_sparse_cb.errors.InputError: SparsityCallback: unknown argument 'tuning_epochs'; did you mean 'tunning_epochs'?
    """
    known = list(known)
    for key in given:
        if key not in known:
            raise InputError(f"{where}: unknown argument {key!r}; {did_you_mean(str(key), known)}")


def check_same(saved: Mapping[str, Any], current: Mapping[str, Any], where: str | Path) -> None:
    """Compares settings of a checkpoint with those of this run.

    Args:
        saved: the settings of the checkpoint; values may be mappings themselves.
        current: the settings of this run.
        where: the checkpoint's file, for the message.

    Raises:
        InputError: they differ; the message names the first difference and both values.
    """
    for key in [*current, *(key for key in saved if key not in current)]:
        theirs, ours = saved.get(key, "missing"), current.get(key, "missing")
        if isinstance(theirs, Mapping) and isinstance(ours, Mapping):
            check_same(theirs, ours, f"{where}: {key}")
        elif theirs != ours:
            raise InputError(f"{where}: {key} is {_shortened(theirs)} in the checkpoint and {_shortened(ours)} in this run")


def _shortened(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 200 else text[:200] + " ..."
