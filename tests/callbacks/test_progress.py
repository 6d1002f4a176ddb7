import fcntl
import logging
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import paddle
import pytest
from helpers import same_on_paddle_3
from paddle import nn

from paddle_sparse_cb import InputError
from paddle_sparse_cb.callbacks.progress import TrainingProgress

HERE = Path(__file__).parent
STEP = r"epoch (\d)/2  step (\d+)/10  loss [\d.e-]+ \(ce [\d.e-]+, l2 [\d.e-]+\)  lr 0\.01(  \d+ s left)?"


class TwoLosses(nn.Layer):
    """A classifier that computes two losses in training and none in evaluation, as a detector does."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 10)

    def forward(self, image, label):
        logits = self.linear(image.flatten(1))
        if not self.training:
            return logits, label
        return nn.functional.cross_entropy(logits, label).reshape([1]), 0.1 * logits.square().mean().reshape([1])


class TwoMetrics(paddle.metric.Metric):
    """`mAP` is measured in evaluations only, and keeps its value afterwards; `AP50` is never measured."""

    def __init__(self):
        super().__init__()
        self.right, self.images, self.measured = 0, 0, float("nan")

    def name(self):
        return ["mAP", "AP50"]

    def compute(self, *outputs):
        return outputs if outputs[0].ndim == 2 else []

    def update(self, logits=None, label=None):
        if logits is not None:
            self.right += int((logits.argmax(1) == label.reshape(-1)).sum())
            self.images += len(label)
            self.measured = self.right / self.images

    def reset(self):
        self.right = self.images = 0

    def accumulate(self):
        return [self.measured, float("nan")]


def losses(*outputs):
    return list(outputs) if outputs[0].shape == [1] else [paddle.full([1], float("nan"))]


def two_losses():
    network = TwoLosses()
    model = paddle.Model(
        network,
        inputs=[
            paddle.static.InputSpec([None, 1, 8, 8], "float32", "image"),
            paddle.static.InputSpec([None, 1], "int64", "label"),
        ],
    )
    model.prepare(paddle.optimizer.Momentum(0.01, parameters=network.parameters()), losses, TwoMetrics())
    return model


def fit(digits, *callbacks, loss_names=("ce", "l2"), log_iter=4, epochs=2, evaluate=True, verbose=0):
    progress = [] if verbose else [TrainingProgress("digits", loss_names, log_iter)]
    two_losses().fit(
        digits,
        digits if evaluate else None,
        epochs=epochs,
        batch_size=16,
        verbose=verbose,
        callbacks=[*progress, *callbacks],
    )


class Fail(paddle.callbacks.Callback):
    def on_train_batch_end(self, step, logs=None):
        if step == 5:
            raise RuntimeError("no more data")


def test_lines_name_epoch_step_losses_and_learning_rate(first_digits, capsys):
    fit(first_digits)
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == "training digits: 2 epochs, 10 steps per epoch"
    steps = [re.fullmatch(STEP, line) for line in lines if line.startswith("epoch")]
    assert [(int(step[1]), int(step[2])) for step in steps] == [(1, 4), (1, 8), (1, 10), (2, 4), (2, 8), (2, 10)]
    assert [bool(step[3]) for step in steps] == [True, True, True, True, True, False]


def test_only_measured_values_are_printed(first_digits, capsys):
    fit(first_digits, verbose=2)
    assert "loss: nan" in capsys.readouterr().out  # hapi's progress bar, which `TrainingProgress` replaces
    fit(first_digits)
    lines = capsys.readouterr().out.splitlines()
    assert not [line for line in lines if "nan" in line]
    assert all(re.fullmatch(r"evaluation: mAP 0\.\d{4}", line) for line in (lines[4], lines[-1]))
    assert len([line for line in lines if "mAP" in line]) == 2


def test_the_loss_is_the_sum_of_the_named_losses(first_digits, capsys):
    fit(first_digits, log_iter=1)
    lines = re.findall(r"loss ([\d.]+) \(ce ([\d.]+), l2 ([\d.]+)\)", capsys.readouterr().out)
    assert len(lines) == 20
    for total, *named in lines:
        assert float(total) == pytest.approx(sum(map(float, named)), rel=1e-3)


@pytest.mark.parametrize("names", [(), ("ce",), ("ce", "l2", "dfl")])
def test_losses_without_matching_names_are_shown_as_a_sum(first_digits, capsys, names):
    fit(first_digits, loss_names=names, epochs=1, evaluate=False)
    assert re.search(r"step 4/10  loss [\d.]+  lr", capsys.readouterr().out)


def test_a_training_of_unknown_length_shows_the_completed_steps(digits, capsys):
    class Stream(paddle.io.IterableDataset):
        def __iter__(self):
            return (digits[index] for index in range(64))

    loader = paddle.io.DataLoader(Stream(), batch_size=16)
    fit(loader, log_iter=3, evaluate=False)
    shown = [line.partition("  loss")[0] for line in capsys.readouterr().out.splitlines()]
    # The length of the second epoch is known from the first one.
    assert shown == [
        "training digits: 2 epochs",
        "epoch 1/2  step 3",
        "epoch 1/2  step 4",
        "epoch 2/2  step 3/4",
        "epoch 2/2  step 4/4",
    ]


def test_only_rank_zero_prints(first_digits, capsys, monkeypatch):
    monkeypatch.setattr("paddle.distributed.get_rank", lambda: 1)
    fit(first_digits)
    assert capsys.readouterr().out == ""


def test_an_evaluation_without_batches_prints_no_metrics_of_an_earlier_one(capsys):
    progress = TrainingProgress("digits")
    progress.set_params({"metrics": ["loss", "mAP"]})
    progress.on_eval_begin({"steps": 0})
    progress.on_eval_end({"loss": [0.5], "mAP": 0.9})
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "value", [None, "high", [], ["high"], [None], 10**400, {"a": 1}, float("inf"), paddle.ones([2]), object()]
)
def test_malformed_logs_never_raise(value, capsys):
    progress = TrainingProgress("digits", log_iter=1)
    progress.set_params({"epochs": 1, "steps": None, "metrics": ["loss", "mAP", "AP50"]})
    for logs in (None, value, {}, {"loss": value, "mAP": value, "AP50": 0.5}):
        progress.on_train_begin(logs)
        progress.on_epoch_begin(0, logs)
        progress.on_train_batch_end(0, logs)
        progress.on_epoch_end(0, logs)
        progress.on_eval_begin(logs)
        progress.on_eval_batch_end(0, logs)
        progress.on_eval_end(logs)
        progress.on_train_end(logs)
    printed = capsys.readouterr().out
    assert printed.endswith("evaluation: AP50 0.5000\n")
    assert "mAP" not in printed


@pytest.mark.parametrize("log_iter", [0, -1, 1.5, "20"])
def test_a_wrong_log_iter_is_an_input_error(log_iter):
    with pytest.raises(InputError, match="log_iter"):
        TrainingProgress("digits", log_iter=log_iter)


def terminal_digits():
    images = paddle.rand([160, 1, 8, 8])
    return paddle.io.TensorDataset([images, paddle.randint(0, 10, [160, 1])])


def on_terminal(code, columns=100, term="xterm"):
    """Runs code in a pseudo-terminal and returns its exit code and the text that the terminal received."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    environment = {
        **os.environ,
        "TERM": term,
        "PYTHONWARNINGS": "ignore::UserWarning",  # Paddle 3 warns of a missing ccache at import
        # This module and what it imports.
        "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")]),
    }
    for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        environment.pop(name, None)
    process = subprocess.Popen(
        [sys.executable, "-c", f"from test_progress import *\n{code}"],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=environment,
    )
    os.close(slave)
    received = b""
    while True:
        try:
            chunk = os.read(master, 65536)
        except OSError:  # the process has closed its end
            break
        if not chunk:
            break
        received += chunk
    os.close(master)
    return process.wait(), received.decode()


def screen(received):
    """Returns the lines that a terminal shows after receiving the text, without trailing blank lines."""
    lines, row, column = [""], 0, 0
    for control, count, final, text in re.findall(r"(\x1b\[\??([\d;]*)([A-Za-z])|\r|\n)|([^\x1b\r\n]+)", received):
        if text:
            lines[row] = lines[row][:column].ljust(column) + text + lines[row][column + len(text) :]
            column += len(text)
        elif control == "\r":
            column = 0
        elif control == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif final == "A":
            row = max(0, row - int(count or 1))
        elif final == "K":
            lines[row] = ""
    return "\n".join(line.rstrip() for line in lines).rstrip("\n").split("\n")


def is_live(line):
    return "━" in line


class Slow(paddle.callbacks.Callback):
    """Gives the bar time to be drawn at every step, and prints as unrelated code does."""

    def on_train_batch_end(self, step, logs=None):
        time.sleep(0.11)
        if step == 5:
            print("a line of other code")
            print("a warning of other code", file=sys.stderr)
        if step == 9:
            self.stream = sys.stdout  # as a logging handler keeps a reference
            print("an unfinished line", end="")


@same_on_paddle_3
@pytest.mark.parametrize("columns", [100, 40])
def test_on_a_terminal_a_bar_is_shown_and_removed(columns):
    code, received = on_terminal("fit(terminal_digits(), Slow(), epochs=1)\nprint('after')", columns)
    assert code == 0
    assert is_live(received)
    assert re.search(r"step \d+/10", received)
    assert re.search(r"\d+\s+s\s+left", received)
    shown = screen(received)
    assert not any(map(is_live, shown))
    assert received.rindex("\x1b[?25h") > received.rindex("\x1b[?25l")  # the cursor is visible
    assert shown[0] == "training digits: 1 epoch, 10 steps per epoch"
    for line in ("a line of other code", "a warning of other code", "an unfinished line", "after"):
        assert shown.count(line) == 1
    [last_step] = [line for line in shown if line.startswith("epoch 1/1  step 10/10")]
    assert shown.index("an unfinished line") < shown.index(last_step)
    assert sum(line.startswith("evaluation: mAP 0.") for line in shown) == 1
    assert "nan" not in received


@same_on_paddle_3
def test_a_training_that_raises_leaves_no_bar_on_the_terminal():
    code, received = on_terminal("fit(terminal_digits(), Slow(), Fail(), epochs=1)")
    assert code == 1
    assert is_live(received)
    shown = screen(received)
    assert shown[-1] == "RuntimeError: no more data"
    assert not any(map(is_live, shown))
    assert received.rindex("\x1b[?25h") > received.rindex("\x1b[?25l")


@same_on_paddle_3
def test_the_bar_of_a_training_that_raises_is_removed():
    code, received = on_terminal("""
progress, stdout = TrainingProgress("digits"), sys.stdout
try:
    two_losses().fit(terminal_digits(), batch_size=16, verbose=0, callbacks=[progress, Slow(), Fail()])
except RuntimeError:
    assert sys.stdout is stdout
print("after fit")
sys.stdout.flush()
os._exit(0)  # so that no exit handler can remove the bar
""")
    assert code == 0, received
    assert is_live(received)
    shown = screen(received)
    assert shown[-1] == "after fit"
    assert not any(map(is_live, shown))


@same_on_paddle_3
def test_a_terminal_without_cursor_movement_gets_plain_lines():
    code, received = on_terminal("fit(terminal_digits(), epochs=1)", term="dumb")
    assert code == 0
    assert "\x1b" not in received
    assert "epoch 1/1  step 4/10  loss" in received


@pytest.mark.parametrize(("level", "steps"), [("DEBUG", 20), ("INFO", 6), ("WARNING", 0)])
def test_the_level_of_the_packages_logger_decides_how_many_lines_are_printed(first_digits, capsys, level, steps):
    logger = logging.getLogger("paddle_sparse_cb")
    logger.setLevel(level)
    try:
        fit(first_digits)
    finally:
        logger.setLevel(logging.INFO)
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if line.startswith("epoch")]) == steps
    assert bool(lines) == bool(steps)
