"""Worker processes of a loader that survive a signal to their process group, and end with their parent.

A terminal or a scheduler sends a signal to the whole group. The main process then saves a checkpoint and ends its
workers; if these ended by themselves, Paddle would raise an error in the middle of a batch.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Iterator

import numpy as np

_SIGNALS = {signal.SIGINT, signal.SIGTERM}
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def release_numpys_lock_in_forks() -> None:
    """Has every fork of this process wait for the lock of NumPy's global random numbers, and release it in the child.

    A thread that draws random numbers at the moment of a fork, such as that of another loader, leaves the lock locked
    in the child for ever, where Paddle seeds the worker with it. (NumPy 1.23 to 2.x have no handler of their own.)
    """
    if hasattr(os, "register_at_fork"):  # not on Windows
        lock = np.random.mtrand._rand._bit_generator.lock
        os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)


@contextlib.contextmanager
def block_signals() -> Iterator[None]:
    """Blocks Ctrl-C and SIGTERM, also for worker processes that start within the block."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_process_group(worker: int) -> None:
    """Moves a worker process, which starts with blocked signals, to a process group of its own."""
    if not hasattr(signal, "pthread_sigmask"):
        return
    os.setpgrp()
    if sys.platform == "linux":
        # Paddle's workers notice that their parent was killed, and then wait forever for it to read what they loaded.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    # Discards what arrived before, without replacing Paddle's handler: with it a worker that its parent terminates
    # ends with 0, and the parent sees no failure.
    while signal.sigpending() & _SIGNALS:
        signal.sigwait(_SIGNALS)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


release_numpys_lock_in_forks()
