"""Worker processes of a loader: they outlive a signal to the group, and a program that ends leaves none behind."""

import subprocess
import sys

from helpers import RECIPES

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
