"""Atomic file writes: a reader sees the previous file or the complete new one, never a part."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

_LOCK = "lock"  # in each scratch folder, held by the process that writes there


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
    with scratch_folder(target.parent, target.name) as scratch:
        yield scratch / target.name
        atomic_replace(scratch / target.name, target)


def atomic_replace(scratch: Path, target: Path) -> None:
    """Flushes a file to disk and renames it to `target`; after a power cut either the old or the new file is there."""
    with scratch.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(scratch, target)


@contextlib.contextmanager
def scratch_folder(parent: Path, name: str) -> Iterator[Path]:
    """Creates an empty folder and removes it at the end of the block.

    First removes what killed processes have left of scratch folders of this name. Those of running processes are kept.

    Args:
        parent: the existing folder in which it is created.
        name: what is written there, for the name of the folder: `.<name>.<random>`.

    Yields:
        The empty folder.
    """
    remove_stale_scratch(parent, name)
    with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=parent) as scratch, FileLock(Path(scratch, _LOCK)):
        content = Path(scratch, "content")
        content.mkdir()
        yield content


def remove_stale_scratch(parent: Path, name: str | None = None) -> None:
    """Removes the scratch folders that killed processes have left.

    Args:
        parent: the folder that contains them; nothing is done if it does not exist.
        name: only those of this name (see `scratch_folder`); None stands for all names.
    """
    pattern = ".*.*" if name is None else f".{glob.escape(name)}.*"
    for lock_file in parent.glob(f"{pattern}/{_LOCK}"):
        with contextlib.suppress(Timeout, FileNotFoundError), FileLock(lock_file, timeout=0):
            shutil.rmtree(lock_file.parent, ignore_errors=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a UTF-8 text file atomically."""
    with atomic_write(path) as scratch:
        scratch.write_text(text, encoding="utf-8")


def read_small_text(path: str | os.PathLike[str], most: int = 50_000_000) -> str:
    """Reads a UTF-8 text file that a stranger may have named or made.

    Args:
        path: the file.
        most: the most bytes that it may have.

    Raises:
        FileNotFoundError: it does not exist.
        ValueError: it is no regular file, such as a pipe that would never end, or too large, or no UTF-8.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise ValueError("it is no regular file")
    if path.stat().st_size > most:
        raise ValueError(f"it has more than {most:,} bytes")
    return path.read_text(encoding="utf-8")


def valid_text(text: str) -> str:
    """Returns a text that can be written as UTF-8: half surrogate pairs, as in some file names, become `?`."""
    return text.encode("utf-8", "replace").decode("utf-8")
