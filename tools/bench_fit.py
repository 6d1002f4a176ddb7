#!/usr/bin/env python3
"""Measures the overhead of `SparsityCallback` in a `fit`, with TensorBoard at its default frequency: `make bench`.

Fits with and without the callback alternate in one process. Prints the median wall times of a fit and the overhead.
"""

from __future__ import annotations

import statistics
import tempfile
import time
import zlib  # noqa: F401  before paddle, as the package does
from pathlib import Path

import paddle
from paddle import nn

from paddle_sparse_cb import SparsityCallback
from paddle_sparse_cb.detection import config
from paddle_sparse_cb.detection.build import build_detector
from paddle_sparse_cb.utils.tables import render_table

RECIPES = Path(__file__).parent.parent / "recipes"


def picodet_s():
    """Returns PicoDet-s for images of 256 pixels, with loader and settings: 10 steps of batch size 8."""
    content = config.read_with_bases(RECIPES / "picodet_s_416_trees.yml")
    content["TrainReader"]["batch_transforms"][0]["BatchRandomResize"]["target_size"] = [256]
    detector = build_detector(content, "picodet_s_416_trees.yml")
    return (
        detector.model,
        detector.train_loader,
        {
            "pruning_iterations": 8,
            "tunning_iterations": 2,
            "stable_iterations": 0,
            "pruning_steps": 8,
            "skip": detector.network.prediction_layers(),
        },
    )


def lenet():
    """Returns LeNet for 28x28 images, with loader and settings: 60 steps of batch size 64."""
    images = paddle.io.TensorDataset([paddle.rand([60 * 64, 1, 28, 28]), paddle.randint(0, 10, [60 * 64, 1])])
    network = paddle.vision.models.LeNet()
    model = paddle.Model(network)
    model.prepare(paddle.optimizer.Momentum(0.01, parameters=network.parameters()), nn.CrossEntropyLoss())
    return (
        model,
        paddle.io.DataLoader(images, batch_size=64),
        {
            "pruning_iterations": 50,
            "tunning_iterations": 10,
            "stable_iterations": 0,
            "pruning_steps": 10,
            "prune_params_type": None,
        },
    )


def median_seconds(make, rounds):
    """Returns the median seconds of a fit without and with the callback."""
    seconds: tuple[list[float], ...] = ([], [])
    model, loader, settings = make()
    for round_ in range(rounds + 1):
        for with_callback, times in enumerate(seconds):
            with tempfile.TemporaryDirectory() as folder:
                callbacks = [SparsityCallback(log_dir=folder, **settings)] if with_callback else []
                start = time.perf_counter()
                model.fit(loader, epochs=1, verbose=0, callbacks=callbacks)
                if round_:  # the first round warms up, and imports PaddleSlim and TensorBoard
                    times.append(time.perf_counter() - start)
    return [statistics.median(times) for times in seconds]


def main():
    rows = []
    fits = (("LeNet, batch 64, 60 steps", lenet, 15), ("PicoDet-s, batch 8, 10 steps", picodet_s, 3))
    for name, make, rounds in fits:
        without, with_callback = median_seconds(make, rounds)
        rows.append((name, f"{without:.3f} s", f"{with_callback:.3f} s", f"{with_callback / without - 1:+.1%}"))
    print(render_table(("fit", "without", "with the callback", "more"), rows, "lrrr"))


if __name__ == "__main__":
    main()
