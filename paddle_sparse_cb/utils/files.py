"""Atomic file writes: a reader sees the previous file or the complete new one, never a part."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def atomic_write(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a scratch path to write to; the scratch file replaces the target when the block succeeds.

    The scratch path is in a temporary folder beside the target, so that the last step is a rename within one file
    system. When the block raises, the target is unchanged.

    Args:
        target: the file to create or to replace.

    Yields:
        A path that does not exist yet, with the target's own file name.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as scratch_dir:
        scratch = Path(scratch_dir, target.name)
        yield scratch
        atomic_replace(scratch, target)


def atomic_replace(scratch: Path, target: Path) -> None:
    """Flushes a file to disk and renames it to `target`; after a power cut either the old or the new file is there."""
    with scratch.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(scratch, target)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a UTF-8 text file atomically."""
    with atomic_write(path) as scratch:
        scratch.write_text(text, encoding="utf-8")
