"""Files written whole or not at all, and where the cache is."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path


def cache_dir() -> Path:
    """The folder for fetched weights, images and tools: `$PADDLE_SPARSE_CACHE`, else below the user's cache folder."""
    explicit = os.environ.get("PADDLE_SPARSE_CACHE")
    if explicit:
        return Path(explicit).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "paddle_sparse_cb"


@contextlib.contextmanager
def atomic_write(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a scratch path to write a file to; it takes the target's place when the block ends well.

    The scratch path lies beside the target, so that the last step is a rename within one file system. When the block
    raises, what was there before is still there.

    Args:
        target: the file to make or to replace.

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
    """Renames a finished file to its name, after its content is on the disk: a power cut leaves the old or the new."""
    with scratch.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(scratch, target)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a UTF-8 text file whole or not at all."""
    with atomic_write(path) as scratch:
        scratch.write_text(text, encoding="utf-8")


def build_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """Gives a folder of the cache, and makes it if it is not there.

    Args:
        folder: the folder.
        make: fills the path it is given, which does not exist yet. Two processes may both do so, as the ranks of a
            distributed training do; the first to end wins, and the folder is never changed again.

    Returns:
        The folder.
    """
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
            made = Path(scratch, folder.name)
            make(made)
            try:
                os.rename(made, folder)
            except OSError:
                if not folder.is_dir():
                    raise
    return folder
