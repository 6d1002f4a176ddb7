"""The code in README.md and in the pages on resuming, training and distillation runs as printed."""

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import curves, same_on_paddle_3

ROOT = Path(__file__).parent.parent
README, RESUME, TRAINING, DISTILLATION = (
    re.findall(r"```python\n(.*?)```", (ROOT / file).read_text(), re.S)
    for file in ("README.md", "docs/resume.md", "docs/training.md", "docs/distillation.md")
)

# Real digits, resized to the input size and channels of a network. The detection extra cannot be imported.
DATA = """
import sys
for name in ("ppdet", "pycocotools"):
    sys.modules[name] = None
import zlib, paddle
from sklearn.datasets import load_digits
images, labels = load_digits(return_X_y=True)
images = paddle.to_tensor(images[:{images}].reshape(-1, 1, 8, 8).astype("float32") / 16)
images = paddle.nn.functional.interpolate(images, [{size}, {size}]).expand([-1, {channels}, -1, -1])
train_data = paddle.io.TensorDataset([images, paddle.to_tensor(labels[:{images}].reshape(-1, 1))])
"""


def run(code, folder):
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "size", "channels"),
    [pytest.param("mobilenet_v3_small(num_classes=10)", 32, 3, marks=same_on_paddle_3), ("LeNet()", 28, 1)],
)
def test_ten_lines_prune_a_network_without_the_detection_extra(network, size, channels, tmp_path):
    code = README[0].replace("mobilenet_v3_small(num_classes=10)", network)
    assert len(code.strip().splitlines()) <= 11  # one of them is blank
    done = run(DATA.format(images=64, size=size, channels=channels) + code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "pruned weights 75.0" in done.stdout
    assert list((tmp_path / "curves").iterdir())


@pytest.mark.slow
def test_deployment_code_creates_a_sparse_model_that_is_smaller(tmp_path):
    fit = README[0][README[0].index("model.fit") :]
    code = README[0][: README[0].index("sparsity =")] + README[1] + fit
    done = run(DATA.format(images=64, size=64, channels=3) + code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^nb: ok: (\d+) of \1 planned layers run sparse", done.stdout, re.M), done.stdout
    output = tmp_path / "output" / "mine"
    assert (output / "model_sparse.nb").stat().st_size < (output / "model_dense.nb").stat().st_size


@same_on_paddle_3
@pytest.mark.slow
def test_killed_script_resumes_and_its_result_is_bit_identical(tmp_path):
    kill = """
class Kill(paddle.callbacks.Callback):
    def on_train_batch_begin(self, step, logs=None):
        if (tmp_path / "2.pdsparse").exists() and step == 1:
            import os, signal
            os.kill(os.getpid(), signal.SIGKILL)
"""
    code = DATA.format(images=128, size=28, channels=1) + RESUME[0] + "print(sparsity.pruner.cur_iteration)"
    killed = code.replace(
        "callbacks = [", kill.replace("tmp_path", "__import__('pathlib').Path('checkpoints')") + "callbacks = [Kill(), "
    )
    assert run(killed, tmp_path).returncode == -9
    done = run(code, tmp_path)
    assert done.stdout.split()[-1] == "8", done.stderr  # optimizer steps
    (tmp_path / "uninterrupted").mkdir()
    assert run(code, tmp_path / "uninterrupted").returncode == 0
    digests = [
        hashlib.sha256((folder / "checkpoints" / "3.pdparams").read_bytes()).hexdigest()
        for folder in (tmp_path, tmp_path / "uninterrupted")
    ]
    assert digests[0] == digests[1]


@pytest.mark.slow
def test_curves_are_written_as_documented(tmp_path):
    prepared = README[0][: README[0].index("sparsity =")].replace("mobilenet_v3_small(num_classes=10)", "LeNet()")
    done = run(DATA.format(images=128, size=28, channels=1) + prepared + TRAINING[0], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "weights are pruned to 75.00%" in done.stdout
    assert "target_sparsity: 0.7500" in done.stdout
    read = curves(tmp_path / "output" / "sparse")
    assert [step for step, _ in read["eval/acc"]] == [0, 2, 4]


@pytest.mark.slow
def test_masks_of_a_paddleslim_checkpoint_are_applied_as_documented(tmp_path):
    checkpoint = """
import numpy as np, paddle
network = paddle.nn.Sequential(paddle.nn.Conv2D(2, 4, 1))
arrays = {"0.weight": np.ones([4, 2, 1, 1], "float32"), "0.bias": np.zeros([4], "float32"),
          "0.conv2d_0_w_0_mask": np.arange(8).reshape(4, 2, 1, 1) % 2 == 0}
paddle.save({name: paddle.to_tensor(array) for name, array in arrays.items()}, "paddleslim.pdparams")
"""
    code = checkpoint + TRAINING[-1] + "print(masked, network[0].weight.flatten().tolist())"
    done = run(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[-2] == "('0.weight',) [1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0]"


@pytest.mark.slow
def test_a_pruned_network_keeps_its_zeros_when_trained_further_as_documented(tmp_path):
    fit = "model.fit(train_data, epochs=1, batch_size=64, verbose=0, callbacks=[sparsity])\n"
    ratio = "print(f'{measure_sparsity(network, sparsity.pruner.plan).ratio:.2%}')"
    code = README[0].replace("mobilenet_v3_small(num_classes=10)", "LeNet()") + TRAINING[1] + fit + ratio
    done = run(DATA.format(images=128, size=28, channels=1) + code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "75.00%"
    assert "pruned weights will become non-zero" not in done.stderr


@same_on_paddle_3
@pytest.mark.slow
def test_single_layers_have_their_ratios_and_blocks_and_channels_are_permuted_as_documented(tmp_path):
    done = run(TRAINING[3] + TRAINING[4], tmp_path)
    assert done.returncode == 0, done.stderr
    rows = [line.split()[-4:] for line in done.stdout.splitlines()]
    assert ["60.00%", "4x1", "pruned"] in [row[1:] for row in rows]
    assert ["87.50%", "2x1", "pruned"] in [row[1:] for row in rows]
    assert "4x1 does not divide it" in done.stdout
    assert re.search(r"# (\{.*\})", TRAINING[3])[1] in done.stdout
    before, after = re.search(r"^0.weight: (\S+)% -> (\S+)% of", done.stdout, re.M).groups()
    assert float(after) > float(before)


@pytest.mark.slow
def test_settings_are_validated_and_scheduled_as_documented(tmp_path):
    done = run(TRAINING[2], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == re.search(r"# (\d+) optimizer", TRAINING[2])[1]


@pytest.mark.slow
def test_a_pruned_network_learns_from_its_dense_self_as_documented(tmp_path):
    code = DISTILLATION[0] + "print(f'{sparsity.report.ratio:.2%}')"
    done = run(DATA.format(images=128, size=28, channels=1) + code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "75.00%"
    assert {"train/distillation/logits", "train/distillation/features"} <= curves(tmp_path / "curves").keys()
