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

_SIGNALS = {signal.SIGINT, signal.SIGTERM}
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


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
