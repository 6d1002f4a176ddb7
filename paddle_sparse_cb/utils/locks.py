"""Locks of folders: one process at a time writes to them."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import InputError
from .distributed import is_rank_zero

LOCK = ".lock"
# Beside the lock and not in it: some versions of filelock empty the file of a lock that another process holds.
_HOLDER = ".lock-holder"


@contextlib.contextmanager
def lock_folder(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Keeps other processes from locking a folder; several blocks of one process may lock the same one.

    The operating system releases the lock when the process ends, however it ends. Only rank 0 takes the lock, and none
    waits for it.

    Args:
        folder: created if needed.

    Raises:
        InputError: another process holds the lock; the message names it.
    """
    if not is_rank_zero():
        yield
        return
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lock, holder = FileLock(folder.resolve() / LOCK, is_singleton=True), folder / _HOLDER
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(
            f"{folder} is in use by {_read_holder(holder)}: wait until it has ended, or choose another folder"
        ) from None
    try:
        holder.write_text(f"process {os.getpid()} on {socket.gethostname()}\n", encoding="utf-8")
        yield
    finally:
        if lock.lock_counter == 1:
            holder.unlink(missing_ok=True)
        lock.release()


def _read_holder(holder: Path) -> str:
    """Returns who holds a lock; the file may not be written yet."""
    try:
        return holder.read_text(encoding="utf-8").strip() or "another process"
    except (OSError, ValueError):
        return "another process"
