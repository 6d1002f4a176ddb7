#!/usr/bin/env python3
"""Measures what a callback adds to the time of a `fit`: `make bench`.

`SparsityCallback` with TensorBoard at its default frequency, and `Distillation` from a teacher of the same network.
Fits with and without the callback alternate in one process. Prints the median wall times of a fit, and the median of
what the callback adds to the fit right before it.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import zlib  # noqa: F401  before paddle, as the package does
from pathlib import Path
from typing import Any

import paddle
from paddle import nn

from paddle_sparse_cb import Distillation, SparsityCallback
from paddle_sparse_cb.detection import config
from paddle_sparse_cb.detection.build import build_detector
from paddle_sparse_cb.detection.depthwise import use_fast_depthwise
from paddle_sparse_cb.detection.distillation import DetectionDistillation, TeacherNetwork
from paddle_sparse_cb.detection.network import build_network
from paddle_sparse_cb.utils.tables import render_table

RECIPES = Path(__file__).parent.parent / "recipes"


def build_picodet_s(size):
    """Returns PicoDet-s for images of `size` pixels: 10 steps of batch size 8."""
    content = config.read_with_bases(RECIPES / "picodet_s_416_trees.yml")
    content["TrainReader"]["batch_transforms"][0]["BatchRandomResize"]["target_size"] = [size]
    content["PicoHeadV2"]["static_assigner_epoch"] = 0  # its anchors need larger images
    return build_detector(content, "picodet_s_416_trees.yml")


def pruned_picodet_s():
    """Returns PicoDet-s for images of 256 pixels with its loader, and a function that creates the callback."""
    detector = build_picodet_s(256)
    settings: dict[str, Any] = {
        "pruning_iterations": 8,
        "tunning_iterations": 2,
        "stable_iterations": 0,
        "pruning_steps": 8,
    }
    skip = detector.network.prediction_layers()
    return (
        detector.model,
        detector.train_loader,
        lambda folder: SparsityCallback(log_dir=folder, skip=skip, **settings),
    )


def distilled_picodet_s():
    """Returns PicoDet-s for images of 96 pixels with its loader, and a function that creates the callback."""
    detector = build_picodet_s(96)
    teacher = build_network(detector.registry)
    if paddle.get_device() == "cpu":
        use_fast_depthwise(teacher)
    callback = Distillation(TeacherNetwork(teacher), DetectionDistillation(), features=("neck",), outputs="head")
    return detector.model, detector.train_loader, lambda folder: callback


def pruned_lenet():
    """Returns LeNet for 28x28 images with its loader, 60 steps of 64, and a function that creates the callback."""
    images = paddle.io.TensorDataset([paddle.rand([60 * 64, 1, 28, 28]), paddle.randint(0, 10, [60 * 64, 1])])
    network = paddle.vision.models.LeNet()
    model = paddle.Model(network)
    model.prepare(paddle.optimizer.Momentum(0.01, parameters=network.parameters()), nn.CrossEntropyLoss())
    settings: dict[str, Any] = {
        "pruning_iterations": 50,
        "tunning_iterations": 10,
        "stable_iterations": 0,
        "pruning_steps": 10,
        "prune_params_type": None,
    }
    loader = paddle.io.DataLoader(images, batch_size=64)
    return model, loader, lambda folder: SparsityCallback(log_dir=folder, **settings)


FITS = {
    "lenet": ("LeNet, batch 64, 60 steps, SparsityCallback", pruned_lenet, 15),
    "picodet": ("PicoDet-s, 256 px, batch 8, 10 steps, SparsityCallback", pruned_picodet_s, 3),
    "distillation": ("PicoDet-s, 96 px, batch 8, 10 steps, Distillation", distilled_picodet_s, 7),
}


def median_seconds(make, rounds):
    """Returns the median seconds of a fit without and with the callback, and the median ratio of the pairs."""
    seconds: tuple[list[float], ...] = ([], [])
    model, loader, create_callback = make()
    for round_ in range(rounds + 1):
        for with_callback, times in enumerate(seconds):
            with tempfile.TemporaryDirectory() as folder:
                callbacks = [create_callback(folder)] if with_callback else []
                start = time.perf_counter()
                model.fit(loader, epochs=1, verbose=0, callbacks=callbacks)
                if round_:  # the first round warms up, and imports PaddleSlim and TensorBoard
                    times.append(time.perf_counter() - start)
    ratios = [with_callback / without for without, with_callback in zip(*seconds)]
    return [*(statistics.median(times) for times in seconds), statistics.median(ratios)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=FITS, help="measure this fit alone")
    only = parser.parse_args().only
    rows = []
    for name in [only] if only else FITS:
        title, make, rounds = FITS[name]
        without, with_callback, ratio = median_seconds(make, rounds)
        rows.append((title, f"{without:.3f} s", f"{with_callback:.3f} s", f"{ratio - 1:+.1%}"))
    print(render_table(("fit", "without", "with the callback", "more"), rows, "lrrr"))


if __name__ == "__main__":
    main()
