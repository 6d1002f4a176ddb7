"""The script in the page on resuming is killed, and resumes when it is started again."""

import hashlib
import subprocess
import sys

import pytest
from doc_pages import DOCS, blocks
from helpers import same_on_paddle_3

(SCRIPT,) = (block.code for block in blocks(DOCS / "resume.md") if block.language == "python")
# Real digits in the size of LeNet.
DATA = """
import zlib, paddle
from sklearn.datasets import load_digits
images, labels = load_digits(return_X_y=True)
images = paddle.to_tensor(images[:128].reshape(-1, 1, 8, 8).astype("float32") / 16)
images = paddle.nn.functional.interpolate(images, [28, 28])
train_data = paddle.io.TensorDataset([images, paddle.to_tensor(labels[:128].reshape(-1, 1))])
"""
KILL = """
class Kill(paddle.callbacks.Callback):
    def on_train_batch_begin(self, step, logs=None):
        import os, pathlib, signal
        if pathlib.Path("checkpoints/2.pdsparse").exists() and step == 1:
            os.kill(os.getpid(), signal.SIGKILL)
"""


def run(code, folder):
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)


@same_on_paddle_3
@pytest.mark.slow
def test_a_killed_script_resumes_and_its_result_is_bit_identical(tmp_path):
    code = DATA + SCRIPT + "print(sparsity.pruner.cur_iteration)"
    assert run(code.replace("callbacks = [", KILL + "callbacks = [Kill(), "), tmp_path).returncode == -9
    done = run(code, tmp_path)
    assert done.stdout.split()[-1] == "8", done.stderr  # optimizer steps
    uninterrupted = tmp_path / "uninterrupted"
    uninterrupted.mkdir()
    assert run(code, uninterrupted).returncode == 0
    digests = {
        hashlib.sha256((folder / "checkpoints" / "3.pdparams").read_bytes()).hexdigest()
        for folder in (tmp_path, uninterrupted)
    }
    assert len(digests) == 1
