import contextlib
import multiprocessing
import os
import socket
import subprocess
import sys
import time

import pytest
from helpers import forked

from paddle_sparse_cb import InputError
from paddle_sparse_cb.utils.locks import lock_folder

LOCK = """
import sys
from paddle_sparse_cb.utils.locks import lock_folder
with lock_folder(sys.argv[1]):
    pass
"""


@contextlib.contextmanager
def holding(folder):
    """Another process that holds the lock of a folder until the block ends, where it is killed."""
    locked = multiprocessing.get_context("fork").Event()

    def hold():
        with lock_folder(folder):
            locked.set()
            time.sleep(1000)

    process = forked(hold)
    try:
        assert locked.wait(60)
        yield process
    finally:
        process.kill()  # SIGKILL: nothing is cleaned up
        process.join()


def test_a_locked_folder_is_an_error_that_names_the_holder_until_it_is_killed(tmp_path):
    with holding(tmp_path) as holder:
        for _ in range(2):  # the first refusal changes nothing
            with pytest.raises(InputError, match=f"in use by process {holder.pid} on {socket.gethostname()}: wait"):
                lock_folder(tmp_path).__enter__()
    with lock_folder(tmp_path):
        assert (tmp_path / ".lock-holder").read_text().startswith(f"process {os.getpid()} on ")


def test_only_rank_zero_takes_the_lock_and_other_ranks_do_not_wait(tmp_path, monkeypatch):
    with holding(tmp_path):
        monkeypatch.setattr("paddle.distributed.get_rank", lambda: 1)
        with lock_folder(tmp_path):
            pass


def test_one_process_can_lock_a_folder_twice_and_unlocks_it_at_the_last_end(tmp_path):
    with lock_folder(tmp_path):
        with lock_folder(tmp_path / "." / ""):
            pass
        done = subprocess.run([sys.executable, "-c", LOCK, str(tmp_path)], capture_output=True, text=True)
        assert f"in use by process {os.getpid()}" in done.stderr.splitlines()[-1]
    with holding(tmp_path):
        pass


def test_an_error_in_the_block_unlocks_the_folder(tmp_path):
    with pytest.raises(ZeroDivisionError), lock_folder(tmp_path):
        raise ZeroDivisionError
    with holding(tmp_path):
        pass
