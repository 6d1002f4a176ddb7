"""Writes the curves of a training for VisualDL, Paddle's own TensorBoard."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ..errors import InputError


class VisualDLWriter:
    """Writes scalars to a VisualDL record file.

    VisualDL cannot discard points of an earlier file: a resumed training shows both.

    Args:
        log_dir: folder of the record file; created if missing.

    Raises:
        InputError: VisualDL is not installed.
    """

    def __init__(self, log_dir: str | os.PathLike[str]) -> None:
        try:
            from visualdl import LogWriter
        except ImportError as error:
            raise InputError(f"visualdl=True needs VisualDL: pip install visualdl ({error})") from None
        self._writer: Any = LogWriter(logdir=os.fspath(log_dir))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes values by tag at an optimizer step, and flushes them to the disk."""
        for tag, value in values.items():
            self._writer.add_scalar(tag=tag.replace("%", "percent"), value=value, step=step)  # VisualDL refuses it
        self._writer.flush()

    def close(self) -> None:
        """Closes the record file."""
        self._writer.close()
