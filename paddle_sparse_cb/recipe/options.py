"""The options of a command line that change a recipe."""

from __future__ import annotations

from typing import Any

from ..detection import config
from ..errors import InputError


def parse_option(option: str) -> dict[str, Any]:
    """Parses `key=value` or `Block.key=value`, as PaddleDetection's `-o` takes them, to nested mappings.

    Raises:
        InputError: it has another form, or the value is not valid YAML.
    """
    keys, equals, value = option.partition("=")
    if not equals or not keys:
        raise InputError(f"-o {option}: an option must be key=value or Block.key=value")
    try:
        parsed = config.parse_yaml(value)
    except InputError as error:
        raise InputError(f"-o {option}: {error}") from None
    for key in reversed(keys.split(".")):
        parsed = {key: parsed}
    return parsed
