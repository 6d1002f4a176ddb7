#!/usr/bin/env python3
"""What pruning costs, ours beside PaddleSlim's and beside other ways to select: `make bench`.

Each pair is measured interleaved in this one run; the figures are medians. Timings are in milliseconds.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import time
import tracemalloc
import zlib  # noqa: F401  before paddle, as the package does
from pathlib import Path

import numpy as np
import paddle
from paddleslim import GMPUnstructuredPruner

from paddle_sparse_cb import GMPPruner, measure_sparsity
from paddle_sparse_cb.detection import config
from paddle_sparse_cb.detection.network import build_network
from paddle_sparse_cb.pruning.masks import keep_masks
from paddle_sparse_cb.utils.tables import render_table

RECIPES = Path(__file__).parent.parent / "recipes"
CONFIGS = {"stable_iterations": 0, "pruning_iterations": 1000, "tunning_iterations": 0, "pruning_steps": 10,
           "initial_ratio": 0.75, "resume_iteration": 0}
REPEATS = 15


def interleaved(*calls, repeats=REPEATS):
    """Medians in milliseconds of several calls, one after the other in each round."""
    taken: list[list[float]] = [[] for _ in calls]
    for round_ in range(repeats + 1):
        for call, times in zip(calls, taken):
            start = time.perf_counter()
            call()
            if round_:  # the first round warms up
                times.append((time.perf_counter() - start) * 1e3)
    return [statistics.median(times) for times in taken]


def picodet_m():
    content = config.read_with_bases(RECIPES / "_base_" / "picodet_m_esnet.yml")
    return build_network(config.load({**content, "num_classes": 80}, "picodet_m_esnet.yml"))


def mobilenet_v1():
    return paddle.vision.models.mobilenet_v1()


def pruners(make):
    """The two pruners, each on a network of its own, with a Momentum that has taken a step."""
    made = []
    for pruner in (GMPUnstructuredPruner, GMPPruner):
        paddle.seed(0)
        network = make()
        with contextlib.redirect_stdout(io.StringIO()):  # PaddleSlim prints a line for each parameter
            made.append((network, pruner(network, ratio=0.75, prune_params_type="conv1x1_only", local_sparsity=True,
                                         configs=dict(CONFIGS))))
    return made


def bench_network(name, make):
    keys = len(make().state_dict())
    (slim_network, slim), (network, ours) = pruners(make)
    optimizer = paddle.optimizer.Momentum(1e-4, parameters=network.parameters())
    ours.attach(optimizer)
    paddle.add_n([parameter.sum() for parameter in network.parameters() if parameter.trainable]).backward()
    slim.ratio = ours.ratio = 0.75

    def slim_update():
        slim.update_threshold()
        slim._update_masks()

    layers = slim_network.sublayers()

    def slim_hooks():
        for layer in layers:
            slim._forward_pre_hook(layer, None)

    rows = []

    def row(what, theirs, mine, asked, unit="ms"):
        rows.append((name, what, f"{theirs:,.1f} {unit}", f"{mine:,.2f} {unit}", f"{theirs / mine:.1f}x", asked))

    slim_update()
    slim_hooks()  # at 75% like ours, whose sparsity counts
    theirs, mine = interleaved(slim_update, ours._update_masks, repeats=5)
    row("one mask update", theirs, mine, "40x")
    optimizer.step()
    _, alone = pruners(make)[1]  # on a network of its own, without an optimizer: the weights alone, as PaddleSlim's
    alone.ratio = 0.75
    alone._update_masks()
    theirs, mine, moments = interleaved(slim_hooks, alone.update_params, ours.update_params)
    row("a step between updates, weights", theirs, mine, "5x")
    row("the same, and Momentum's velocity", theirs, moments, "-")
    theirs, mine = interleaved(lambda: total_sparse(slim_network), ours.sparsity)
    row("sparsity as logged", theirs, mine, "10x")
    # PaddleSlim's masks are float32 as made, and bool from the first update on.
    theirs = sum(mask.size * 4 for mask in slim.masks.values()) / 1e6
    row("masks in memory", theirs, sum(mask.size for mask in ours.masks.values()) / 1e6, "4x", "MB")
    rows.append((name, "keys added to state_dict", str(len(slim_network.state_dict()) - keys),
                 str(len(network.state_dict()) - keys), "-", "0"))
    report = measure_sparsity(network, ours.plan)
    assert report.ratio >= 0.75, report.ratio
    return rows


def total_sparse(network):
    """PaddleSlim's `total_sparse`, whose `np.product` is gone from newer numpy."""
    total = values = 0
    for layer in network.sublayers():
        for parameter in layer.parameters(include_sublayers=False):
            total += int(np.prod(parameter.shape))
            values += len(paddle.nonzero(parameter))
    return 1 - values / total


def bench_selection(make):
    """One mask for each planned layer, and one ranking over all, on the tensors of a network."""
    network = make()
    pruner = GMPPruner(network, ratio=0.75, prune_params_type="conv1x1_only", local_sparsity=True,
                       configs=dict(CONFIGS))
    weights = pruner._weights
    arrays = [weight.numpy().reshape(-1) for weight in weights]

    def numpy_local():
        for array in arrays:
            magnitudes = np.abs(array)
            count = int(np.ceil(0.75 * array.size))
            _ = magnitudes > np.partition(magnitudes, count - 1)[count - 1]

    def numpy_global():
        magnitudes = np.abs(np.concatenate(arrays))
        count = int(np.ceil(0.75 * magnitudes.size))
        threshold = np.partition(magnitudes, count - 1)[count - 1]
        for array in arrays:
            _ = np.abs(array) > threshold

    calls = {"ours, each layer": lambda: [keep_masks([weight], 0.75) for weight in weights],
             "numpy.partition, each layer (inexact on ties)": numpy_local,
             "ours, one ranking": lambda: keep_masks(weights, 0.75),
             "numpy.partition, one ranking (inexact on ties)": numpy_global}
    try:
        import torch
        from torch.nn.utils import prune
    except ModuleNotFoundError:
        print("torch is not installed here: its rows are left out (pip install torch)")
    else:
        torch.set_num_threads(1)  # as Paddle's and numpy's here
        tensors = [torch.from_numpy(array.copy()) for array in arrays]

        def topk():
            for tensor in tensors:
                count = int(np.ceil(0.75 * tensor.numel()))
                mask = torch.ones_like(tensor, dtype=torch.bool)
                mask[torch.topk(tensor.abs(), count, largest=False).indices] = False

        def global_unstructured():
            layers = [torch.nn.Linear(1, 1, bias=False) for _ in tensors]
            for layer, tensor in zip(layers, tensors):
                layer.weight = torch.nn.Parameter(tensor)
            prune.global_unstructured([(layer, "weight") for layer in layers], prune.L1Unstructured, amount=0.75)

        calls["torch.topk, each layer"] = topk
        calls["torch.nn.utils.prune, one ranking"] = global_unstructured
    times = dict(zip(calls, interleaved(*calls.values())))
    rows = []
    for name, taken in times.items():
        mine = times["ours, one ranking" if "one ranking" in name else "ours, each layer"]
        rows.append((name, f"{taken:.2f} ms", f"{taken / mine:.1f}x"))
    return rows


def bandwidth():
    """Bytes a second that a copy moves, read and written, over 400 MB."""
    source = np.ones(50_000_000, dtype=np.float32)
    target = np.empty_like(source)
    taken, = interleaved(lambda: np.copyto(target, source), repeats=5)
    return 2 * source.nbytes / (taken / 1e3)


def mixed_layers(weights):
    """Layers of mixed sizes, from 16 thousand to 2 million weights, with so many weights together."""
    sizes = [1 << 14, 1 << 16, 1 << 18, 1 << 20, 1 << 21]
    layers: list[np.ndarray] = []
    left = weights
    while left > 0:
        size = min(sizes[len(layers) % len(sizes)], left)
        layers.append(paddle.randn([max(1, size // 256), 256]))
        left -= layers[-1].size
    return layers


def peak(weights):
    """Bytes that numpy holds at most while one ranking over weights is made."""
    tracemalloc.start()
    keep_masks(weights, 0.75)
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return held


def bench_growth(millions):
    moved = bandwidth()
    rows = []
    for count in millions:
        weights = mixed_layers(count * 1_000_000)
        total = sum(weight.size for weight in weights)
        local, together = interleaved(lambda w=weights: [keep_masks([each], 0.75) for each in w],
                                      lambda w=weights: keep_masks(w, 0.75), repeats=3)
        # What has to move: each weight is read once, each mask written once.
        least = 5 * total / moved * 1e3
        beyond = peak(weights) - peak([max(weights, key=lambda weight: weight.size)])  # less one layer's scratch
        rows.append((f"{count} M", len(weights), f"{local:,.0f} ms", f"{local * 1e6 / total:.1f} ns",
                     f"{together:,.0f} ms", f"{together * 1e6 / total:.1f} ns", f"{least:,.0f} ms",
                     f"{local / least:.1f}x", f"{beyond / total:.2f} B"))
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--millions", type=int, nargs="+", default=[1, 10, 100], help="weights of the growth table")
    options = parser.parse_args()
    print(f"Paddle {paddle.__version__}, numpy {np.__version__}, CPU, one thread\n")
    rows = bench_network("PicoDet-m", picodet_m) + bench_network("MobileNetV1", mobilenet_v1)
    print(render_table(("network", "what", "PaddleSlim", "ours", "ratio", "asked"), rows, "llrrrr"), "\n")
    print("The masks of PicoDet-m's 1x1 convolutions at 75%")
    print(render_table(("way", "time", "of ours"), bench_selection(picodet_m), "lrr"), "\n")
    print("Growth")
    print(render_table(("weights", "layers", "each layer", "a weight", "one ranking", "a weight", "least possible",
                        "each layer / least", "memory beyond, a weight"), bench_growth(options.millions), "lrrrrrrrr"))


if __name__ == "__main__":
    main()
