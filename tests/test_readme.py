"""The code of the README and of docs/resume.md runs as it stands there."""

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BLOCKS, RESUME = (re.findall(r"```python\n(.*?)```", (ROOT / file).read_text(), re.S)
                  for file in ("README.md", "docs/resume.md"))

# Real digits, enlarged to the size and channels that a network takes, and no detection extra.
DATA = """
import sys
for name in ("ppdet", "pycocotools"):
    sys.modules[name] = None
import zlib, paddle
from sklearn.datasets import load_digits
images, labels = load_digits(return_X_y=True)
images = paddle.to_tensor(images[:256].reshape(-1, 1, 8, 8).astype("float32") / 16)
images = paddle.nn.functional.interpolate(images, [{size}, {size}]).expand([-1, {channels}, -1, -1])
train_data = paddle.io.TensorDataset([images, paddle.to_tensor(labels[:256].reshape(-1, 1))])
"""


def run(code, folder):
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.parametrize(("network", "size", "channels"), [("mobilenet_v3_small(num_classes=10)", 32, 3),
                                                           ("LeNet()", 28, 1)])
def test_the_ten_lines_work_without_the_detection_extra(network, size, channels, tmp_path):
    lines = BLOCKS[0].replace("mobilenet_v3_small(num_classes=10)", network)
    assert len(lines.strip().splitlines()) <= 11  # and a blank one
    done = run(DATA.format(size=size, channels=channels) + lines, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "pruned weights 75.0" in done.stdout
    assert list((tmp_path / "curves").iterdir())


@pytest.mark.slow
def test_the_lines_to_the_phone_make_a_sparse_file(tmp_path):
    fit = BLOCKS[0][BLOCKS[0].index("model.fit"):]
    lines = BLOCKS[0][:BLOCKS[0].index("sparsity =")] + BLOCKS[1] + fit
    done = run(DATA.format(size=64, channels=3) + lines, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "nb: ok" in done.stdout
    made = tmp_path / "output" / "mine"
    assert (made / "model_sparse.nb").stat().st_size < (made / "model_dense.nb").stat().st_size


@pytest.mark.slow
def test_the_script_that_goes_on_does_so_after_a_kill(tmp_path):
    kill = """
class Kill(paddle.callbacks.Callback):
    def on_train_batch_begin(self, step, logs=None):
        if (tmp_path / "2.pdsparse").exists() and step == 2:
            import os, signal
            os.kill(os.getpid(), signal.SIGKILL)
"""
    lines = DATA.format(size=28, channels=1) + RESUME[0] + "print(sparsity.pruner.cur_iteration)"
    killed = lines.replace("callbacks = [", kill.replace("tmp_path", "__import__('pathlib').Path('checkpoints')") +
                           "callbacks = [Kill(), ")
    assert run(killed, tmp_path).returncode == -9
    done = run(lines, tmp_path)
    assert done.stdout.split()[-1] == "16", done.stderr
    (tmp_path / "whole").mkdir()
    assert run(lines, tmp_path / "whole").returncode == 0
    digests = [hashlib.sha256((folder / "checkpoints" / "3.pdparams").read_bytes()).hexdigest()
               for folder in (tmp_path, tmp_path / "whole")]
    assert digests[0] == digests[1]
