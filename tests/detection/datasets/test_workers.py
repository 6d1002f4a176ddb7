"""Worker processes of a loader: they outlive a signal to the group, and a program that ends leaves none behind."""

import multiprocessing
import subprocess
import sys
import threading
import time

import numpy as np
from helpers import RECIPES

from paddle_sparse_cb.detection.datasets import loader  # noqa: F401  installs what the last test tests

ENDS_WITHIN_AN_EPOCH = f"""
from paddle_sparse_cb.detection import config
from paddle_sparse_cb.detection.datasets.loader import build_loader

content = config.read_with_bases({str(RECIPES / "picodet_s_416_trees.yml")!r})
content["worker_num"] = 2
batches = iter(build_loader(config.load(content, "r.yml"), "Train"))
print(len(next(batches)))
"""


def test_a_program_that_ends_within_an_epoch_ends_its_workers_without_an_error():
    done = subprocess.run([sys.executable, "-c", ENDS_WITHIN_AN_EPOCH], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["6"]
    assert "SystemError" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_worker_can_be_seeded_although_a_thread_was_drawing_random_numbers_when_it_was_forked():
    is_held = threading.Event()

    def draw():
        with np.random.mtrand._rand._bit_generator.lock:  # as NumPy does
            is_held.set()
            time.sleep(0.3)

    thread = threading.Thread(target=draw)
    thread.start()
    is_held.wait()
    worker = multiprocessing.get_context("fork").Process(target=np.random.seed, args=(1,), daemon=True)
    worker.start()
    worker.join(60)
    thread.join()
    assert worker.exitcode == 0
