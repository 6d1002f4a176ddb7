"""Files written whole or not at all, and where the cache is."""

from __future__ import annotations

import contextlib
import os
import shutil
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
def replacing(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a scratch path to write a file or a folder to; it takes the target's place when the block ends well.

    The scratch path lies beside the target, so that the last step is a rename within one file system. When the block
    raises, what was there before is still there.

    Args:
        target: the file or folder to make or to replace.

    Yields:
        A path that does not exist yet, with the target's own file name.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch_dir = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    scratch = scratch_dir / target.name
    try:
        yield scratch
        os.lstat(scratch)  # what was not made takes nobody's place
        if target.is_dir():  # a folder cannot be renamed over one that holds files
            os.replace(target, scratch_dir / "previous")
        os.replace(scratch, target)
    finally:
        shutil.rmtree(scratch_dir, ignore_errors=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a UTF-8 text file whole or not at all."""
    with replacing(path) as scratch:
        scratch.write_text(text, encoding="utf-8")


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
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
