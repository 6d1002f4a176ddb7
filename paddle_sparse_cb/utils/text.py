"""Texts of others, such as the names of classes and files, in one line that a terminal can be sent."""

from __future__ import annotations

import re
import unicodedata

from .files import valid_text

_UNSAFE = ("Cc", "Cs", "Zl", "Zp")  # Unicode categories: control characters, half surrogate pairs, line separators


def is_one_line(text: str) -> bool:
    """Returns whether a text has no line break and no control character."""
    return not any(unicodedata.category(character) in _UNSAFE for character in text)


def one_line(text: str) -> str:
    """Returns a text with spaces in place of line breaks and control characters, and `?` for half surrogate pairs."""
    characters = (" " if unicodedata.category(one) in _UNSAFE else one for one in valid_text(text))
    return re.sub(" +", " ", "".join(characters)).strip()
