"""Small networks and functions that tests share."""

import contextlib
import io
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import paddle
import pytest
from paddle import nn

from paddle_sparse_cb.utils.legacy_programs import legacy_program_format

RECIPES = Path(__file__).parent.parent / "recipes"
PADDLE3 = paddle.__version__ >= "3"
# PaddleDetection and recipes need Paddle 2.6. Without them only on request, and not by what can be imported, so that
# no test is left out unnoticed where they should be.
CORE_ONLY = PADDLE3 or "CORE_TESTS_ONLY" in os.environ


# Marks tests of code that does not use Paddle, or that take long and do the same on every version: once is enough.
same_on_paddle_3 = pytest.mark.skipif(PADDLE3, reason="the same on every version of Paddle")


def forked(function, *arguments):
    """Starts a function in a copy of this process, which takes milliseconds where an import of Paddle takes seconds."""
    process = multiprocessing.get_context("fork").Process(target=function, args=arguments, daemon=True)
    process.start()
    return process


class Pointwise(nn.Layer):
    """A small convolutional network with every kind of layer that a plan distinguishes."""

    def __init__(self, classes=10):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2D(1, 16, 3, padding=1, bias_attr=False), nn.BatchNorm2D(16), nn.ReLU())
        self.depthwise = nn.Conv2D(16, 16, 3, padding=1, groups=16)
        self.expand = nn.Conv2D(16, 64, 1)
        self.squeeze = nn.Sequential(nn.AdaptiveAvgPool2D(1), nn.Conv2D(64, 16, 1), nn.ReLU(), nn.Conv2D(16, 64, 1))
        self.project = nn.Conv2D(64, 32, 1, bias_attr=False)
        self.bn = nn.BatchNorm2D(32)
        self.strided = nn.Conv2D(32, 32, 1, stride=2)
        self.head = nn.Linear(32, classes)

    def forward(self, x):
        x = nn.functional.relu(self.expand(self.depthwise(self.stem(x))))
        x = x * nn.functional.sigmoid(self.squeeze(x))
        x = nn.functional.relu(self.bn(self.project(x)))
        return self.head(self.strided(x).mean(axis=[2, 3]))


def conv(inputs, outputs, kernel=1, **arguments):
    """Returns a convolution without bias that keeps the spatial size."""
    return nn.Conv2D(inputs, outputs, kernel, padding=kernel // 2, bias_attr=False, **arguments)


class Chain(nn.Layer):
    """Two convolutions that Paddle-Lite merges unless another operator or an output reads the first one."""

    def __init__(self, first_output="alone", norm=False):
        super().__init__()
        self.first, self.norm, self.second = conv(16, 16), nn.BatchNorm2D(16) if norm else None, conv(16, 72)
        self.first_output = first_output

    def forward(self, x):
        y = self.first(x) if self.norm is None else self.norm(self.first(x))
        z = self.second(y)
        return {"added": z[:, :16] + y, "an output": (z, {"first": y}), "chosen": (z, y.argmax(1))}.get(
            self.first_output, z
        )


def pruned_context(network, folder, spec, ratio=0.75, block=(1, 1)):
    """Prunes a network at once and returns the context of post-train hooks."""
    from paddle_sparse_cb import GMPPruner, HookContext, make_plan, measure_sparsity

    plan = make_plan(network, spec)
    configs = {"initial_ratio": ratio, "pruning_steps": 1}
    GMPPruner(network, ratio=ratio, local_sparsity=True, plan=plan, sparse_block=block, configs=configs).step()
    return HookContext(network, folder, plan, measure_sparsity(network, plan), ratio)


def cpu_seconds(*commands, rounds=3):
    """Runs Python commands alternately; returns the least CPU time of each, which a busy machine hardly changes."""
    seconds = [[] for _ in commands]
    for _ in range(rounds):
        for arguments, measured in zip(commands, seconds):
            before = os.times()
            subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
            after = os.times()
            measured.append(after.children_user + after.children_system - before.children_user - before.children_system)
    return [min(measured) for measured in seconds]


def classifier(network, learning_rate=0.01, optimizer="Momentum", **keywords):
    """Returns a prepared `paddle.Model` of a classifier."""
    model = paddle.Model(network, **keywords)
    optimizer_type = getattr(paddle.optimizer, optimizer)
    model.prepare(
        optimizer_type(learning_rate=learning_rate, parameters=network.parameters()),
        nn.CrossEntropyLoss(),
        paddle.metric.Accuracy(),
    )
    return model


def slim_checkpoint(network, steps=8, ratio=0.6):
    """Trains with PaddleSlim's pruner as PaddleDetection does; returns the pruner and the arrays to be saved."""
    from paddleslim import GMPUnstructuredPruner  # an import of some seconds

    configs = {
        "stable_iterations": 0,
        "pruning_iterations": 20,
        "tunning_iterations": 20,
        "pruning_steps": 1,
        "initial_ratio": ratio,
        "resume_iteration": 0,
    }
    with contextlib.redirect_stdout(io.StringIO()):  # PaddleSlim prints a line per parameter
        pruner = GMPUnstructuredPruner(
            network, ratio=ratio, prune_params_type="conv1x1_only", local_sparsity=True, configs=configs
        )
    optimizer = paddle.optimizer.Momentum(0.01, parameters=network.parameters())
    for _ in range(steps):
        network(paddle.rand([4, 1, 8, 8])).square().mean().backward()
        optimizer.step()
        optimizer.clear_grad()
        pruner.step()
    network(paddle.rand([4, 1, 8, 8])).square().mean().backward()
    optimizer.step()  # PaddleSlim applies its masks in the forward pass: weights saved now are not masked
    return pruner, {name: tensor.numpy() for name, tensor in network.state_dict().items()}


def run_exported(prefix, *inputs):
    """Runs an exported program on arrays and returns its outputs; the program is read in Paddle 2's format."""
    with legacy_program_format():
        paddle.enable_static()
        try:
            scope = paddle.static.Scope()
            with paddle.static.scope_guard(scope):
                executor = paddle.static.Executor(paddle.CPUPlace())
                program, feeds, fetches = paddle.static.load_inference_model(str(prefix), executor)
                return executor.run(program, dict(zip(feeds, inputs)), fetches)
        finally:
            paddle.disable_static()


def events(log_dir):
    """Reads everything in a folder with TensorBoard."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(log_dir), size_guidance={"scalars": 0, "histograms": 0})
    accumulator.Reload()
    return accumulator


def curves(log_dir):
    """Reads the scalars of a folder with TensorBoard: tag -> [(step, value)]."""
    read = events(log_dir)
    return {tag: [(event.step, event.value) for event in read.Scalars(tag)] for tag in read.Tags()["scalars"]}
