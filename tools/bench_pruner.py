#!/usr/bin/env python3
"""Measures the cost of pruning in comparison with PaddleSlim and other selection methods: `make bench`.

Compared calls alternate in one process. Prints medians: mask updates, steps and memory of the pruner beside
PaddleSlim's, the selection of the largest weights beside numpy and torch, and its growth with the number of weights.
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
CONFIGS = {
    "stable_iterations": 0,
    "pruning_iterations": 1000,
    "tunning_iterations": 0,
    "pruning_steps": 10,
    "initial_ratio": 0.75,
    "resume_iteration": 0,
}
REPEATS = 15


def interleaved(*calls, repeats=REPEATS):
    """Returns the median milliseconds of several calls, which alternate in each round."""
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
    """Returns PaddleSlim's pruner and ours, each with its own network."""
    pairs = []
    for pruner in (GMPUnstructuredPruner, GMPPruner):
        paddle.seed(0)
        network = make()
        with contextlib.redirect_stdout(io.StringIO()):  # PaddleSlim prints a line per parameter
            pairs.append(
                (
                    network,
                    pruner(
                        network,
                        ratio=0.75,
                        prune_params_type="conv1x1_only",
                        local_sparsity=True,
                        configs=dict(CONFIGS),
                    ),
                )
            )
    return pairs


def bench_network(name, make):
    """Returns the rows that compare PaddleSlim's pruner and ours on a network."""
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

    def add_row(what, theirs, mine, required, unit="ms"):
        rows.append((name, what, f"{theirs:,.1f} {unit}", f"{mine:,.2f} {unit}", f"{theirs / mine:.1f}x", required))

    slim_update()
    slim_hooks()  # so that both networks are at 75% when their sparsity is measured
    theirs, mine = interleaved(slim_update, ours.update_masks, repeats=5)
    add_row("one mask update", theirs, mine, "40x")
    optimizer.step()
    _, weights_only = pruners(make)[1]  # without an optimizer: zeroes the weights only, as PaddleSlim does
    weights_only.ratio = 0.75
    weights_only.update_masks()
    theirs, mine, moments = interleaved(slim_hooks, weights_only.update_params, ours.update_params)
    add_row("a step between updates, weights", theirs, mine, "5x")
    add_row("the same, and Momentum's velocity", theirs, moments, "-")
    theirs, mine = interleaved(lambda: total_sparse(slim_network), ours.sparsity)
    add_row("sparsity as logged", theirs, mine, "10x")
    # PaddleSlim's masks are created as float32, and become bool at the first update.
    theirs = sum(mask.size * 4 for mask in slim.masks.values()) / 1e6
    add_row("masks in memory", theirs, sum(mask.size for mask in ours.masks.values()) / 1e6, "4x", "MB")
    rows.append(
        (
            name,
            "keys added to state_dict",
            str(len(slim_network.state_dict()) - keys),
            str(len(network.state_dict()) - keys),
            "-",
            "0",
        )
    )
    report = measure_sparsity(network, ours.plan)
    assert report.ratio >= 0.75, report.ratio
    return rows


def total_sparse(network):
    """Computes the sparsity as PaddleSlim's `total_sparse` does, which calls `np.product`, removed from newer numpy."""
    total = values = 0
    for layer in network.sublayers():
        for parameter in layer.parameters(include_sublayers=False):
            total += int(np.prod(parameter.shape))
            values += len(paddle.nonzero(parameter))
    return 1 - values / total


def bench_selection(make):
    """Times the selection per layer and with one ranking over all planned layers of a network."""
    network = make()
    pruner = GMPPruner(
        network, ratio=0.75, prune_params_type="conv1x1_only", local_sparsity=True, configs=dict(CONFIGS)
    )
    weights = pruner.weights
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

    calls = {
        "ours, each layer": lambda: [keep_masks([weight], 0.75) for weight in weights],
        "numpy.partition, each layer (inexact on ties)": numpy_local,
        "ours, one ranking": lambda: keep_masks(weights, 0.75),
        "numpy.partition, one ranking (inexact on ties)": numpy_global,
    }
    try:
        import torch
        from torch.nn.utils import prune
    except ModuleNotFoundError:
        print("torch is not installed: its rows are omitted (pip install torch)")
    else:
        torch.set_num_threads(1)  # as Paddle and numpy do here
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
    """Measures the memory bandwidth in bytes per second, reads and writes of a copy of 200 MB."""
    source = np.ones(50_000_000, dtype=np.float32)
    target = np.empty_like(source)
    (taken,) = interleaved(lambda: np.copyto(target, source), repeats=5)
    return 2 * source.nbytes / (taken / 1e3)


def mixed_layers(weights):
    """Returns layers of 16 thousand to 2 million weights each, with the given number of weights in total."""
    sizes = [1 << 14, 1 << 16, 1 << 18, 1 << 20, 1 << 21]
    layers: list[np.ndarray] = []
    remaining = weights
    while remaining > 0:
        size = min(sizes[len(layers) % len(sizes)], remaining)
        layers.append(paddle.randn([max(1, size // 256), 256]))
        remaining -= layers[-1].size
    return layers


def peak(weights):
    """Returns the peak memory in bytes of a selection with one ranking over all weights."""
    tracemalloc.start()
    keep_masks(weights, 0.75)
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return held


def bench_growth(millions):
    """Returns the rows of the selection for each number of weights, given in millions."""
    bytes_per_second = bandwidth()
    rows = []
    for count in millions:
        weights = mixed_layers(count * 1_000_000)
        total = sum(weight.size for weight in weights)
        local, together = interleaved(
            lambda w=weights: [keep_masks([each], 0.75) for each in w], lambda w=weights: keep_masks(w, 0.75), repeats=3
        )
        # The lower bound is the memory traffic: each weight is read once, each mask written once.
        least = 5 * total / bytes_per_second * 1e3
        # The memory beyond the scratch memory of one layer.
        beyond = peak(weights) - peak([max(weights, key=lambda weight: weight.size)])
        rows.append(
            (
                f"{count} M",
                len(weights),
                f"{local:,.0f} ms",
                f"{local * 1e6 / total:.1f} ns",
                f"{together:,.0f} ms",
                f"{together * 1e6 / total:.1f} ns",
                f"{least:,.0f} ms",
                f"{local / least:.1f}x",
                f"{beyond / total:.2f} B",
            )
        )
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--millions", type=int, nargs="+", default=[1, 10, 100], help="millions of weights in the growth table"
    )
    options = parser.parse_args()
    print(f"Paddle {paddle.__version__}, numpy {np.__version__}, CPU, one thread\n")
    rows = bench_network("PicoDet-m", picodet_m) + bench_network("MobileNetV1", mobilenet_v1)
    print(render_table(("network", "what", "PaddleSlim", "ours", "ratio", "asked"), rows, "llrrrr"), "\n")
    print("The masks of PicoDet-m's 1x1 convolutions at 75%")
    print(render_table(("method", "time", "of ours"), bench_selection(picodet_m), "lrr"), "\n")
    print("Growth")
    print(
        render_table(
            (
                "weights",
                "layers",
                "each layer",
                "a weight",
                "one ranking",
                "a weight",
                "least possible",
                "each layer / least",
                "memory beyond, a weight",
            ),
            bench_growth(options.millions),
            "lrrrrrrrr",
        )
    )


if __name__ == "__main__":
    main()
