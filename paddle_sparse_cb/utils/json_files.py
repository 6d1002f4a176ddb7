"""Reads JSON files that a user names: one line says what is wrong with them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any, TypeVar

from ..errors import InputError
from .files import read_small_text

_Parsed = TypeVar("_Parsed")


def read_json(path: str | os.PathLike[str], parse: Callable[[Any], _Parsed], kind: str, command: str) -> _Parsed:
    """Reads a JSON file that a stranger may have named or made.

    Args:
        path: the file, see `read_small_text`.
        parse: makes a result of the content; a lookup or conversion that fails in it means that the file is damaged.
        kind: what the file should be, for messages.
        command: what writes such files.

    Raises:
        InputError: the file is missing or damaged.
    """
    try:
        return parse(json.loads(read_small_text(path)))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; {command} writes it") from None
    except KeyError as error:
        raise InputError(f"{path}: not {kind}: it has no {error}") from None
    except (OSError, ValueError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise InputError(f"{path}: not {kind}: {' '.join(str(error).split())[:200]}") from None
