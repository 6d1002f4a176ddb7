"""The fonts of pictures: DejaVu Sans, or for letters that it does not have, such as Chinese ones, one of the system."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

FOLDERS = ("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts")
_NO_LETTER = "\uffff"
_SUFFIXES = (".otf", ".ttc", ".ttf")
_STYLES = ("Black", "Bold", "Italic", "Light", "Oblique", "Thin")  # of fonts that are taken only if there is no other


@functools.lru_cache(maxsize=64)
def find_font(text: str) -> Path:
    """Returns the file of a font that has all letters of a text, or DejaVu Sans if there is none."""
    default = _dejavu_sans()
    return next((font for font in itertools.chain([default], _system_fonts()) if has_letters(font, text)), default)


@functools.lru_cache(maxsize=1024)  # for each box of a picture, with the names of few classes
def has_letters(font: Path, text: str) -> bool:
    """Returns whether a font draws no letter of a text as it draws one that no font has."""
    from PIL import ImageFont

    try:
        loaded = ImageFont.truetype(str(font), 20)
        missing = bytes(loaded.getmask(_NO_LETTER))
        return all(bytes(loaded.getmask(letter)) != missing for letter in set("".join(text.split())))
    except (OSError, RuntimeError):  # a bitmap font, or one that FreeType cannot read
        return False


def _dejavu_sans() -> Path:
    """The font that comes with matplotlib, on which supervision depends."""
    spec: Any = find_spec("matplotlib")
    return Path(spec.submodule_search_locations[0], "mpl-data", "fonts", "ttf", "DejaVuSans.ttf")


def _system_fonts() -> Iterator[Path]:
    # `expanduser` of pathlib raises for a user without a home folder.
    files = (file for folder in FOLDERS for file in Path(os.path.expanduser(folder)).rglob("*"))
    fonts = (file for file in files if file.suffix.lower() in _SUFFIXES and file.is_file())
    yield from sorted(fonts, key=lambda font: (any(style in font.name for style in _STYLES), font))
