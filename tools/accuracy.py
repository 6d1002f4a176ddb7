#!/usr/bin/env python3
"""Compares the mAP of pruning methods on the garments data set: `make accuracy`.

Trains the dense start once, and from it every method and ratio for the same number of epochs, with the same learning
rate and, for each seed, the same order of images and the same flips. Prints a table of means over the seeds.

Each run writes one small JSON file. Runs that have one from the same recipe are skipped, so that an interrupted
comparison can be resumed.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from paddle_sparse_cb.recipe.schema import read_recipe
from paddle_sparse_cb.utils.tables import render_table

RECIPES = Path(__file__).parent.parent / "recipes"
START = "picodet_s_garments.yml"
PRUNED = {0.75: "picodet_s_garments_sparse75.yml", 0.85: "picodet_s_garments_sparse85.yml"}
TITLES = {
    "start": "dense start",
    "dense": "dense, trained on",
    "gmp": "GMP, this project",
    "gmp_se": "GMP, SE pruned too",
    "oneshot": "one-shot",
    "paddleslim": "GMP, PaddleSlim",
    "dense_distilled": "dense, trained on, distilled",
    "gmp_distilled": "GMP, distilled",
    "gmp_unlabelled": "GMP, distilled without labels",
}
DISTILLED = {
    "dense_distilled": "{teacher: dense}",
    "gmp_distilled": "{teacher: dense}",
    "gmp_unlabelled": "{teacher: dense, labels: false}",
}


@dataclass(frozen=True)
class Method:
    """A row of the table: a pruning method with its target ratio."""

    name: str
    ratio: float

    def __str__(self):
        return f"{self.name}{self.ratio:.0%}".rstrip("%") if self.ratio else self.name

    def recipe(self, size):
        """Returns the recipe to train; methods of the same ratio differ only in the pruner."""
        file = RECIPES / (START if self.name == "start" else PRUNED[self.ratio or 0.75])
        recipe = read_recipe(file)
        options = [f"{split}Dataset.sample_num={size.images}" for split in ("Train", "Eval") if size.images]
        if size.epochs and recipe.sparsity:
            options += size.epoch_options(recipe)
        if self.name == "gmp_se":
            options.append("Sparsity.prune_squeeze_excite=true")
        if self.name in DISTILLED:
            options.append(f"Distillation={DISTILLED[self.name]}")
        return read_recipe(file, options=options)


@dataclass(frozen=True)
class Size:
    """The number of epochs and images; `None` keeps those of the recipes."""

    epochs: int | None = None
    images: int | None = None

    def epoch_options(self, recipe):
        """Returns the options that scale the phases and the learning rate of a sparse recipe to `epochs`."""
        before = recipe.content["epoch"]
        pruning = max(1, recipe.sparsity["pruning_epochs"] * self.epochs // before)
        pruning_steps = max(1, recipe.sparsity["pruning_steps"] * self.epochs // before)
        schedulers = [
            {**scheduler, "max_epochs": self.epochs} if scheduler["name"] == "CosineDecay" else scheduler
            for scheduler in recipe.content["LearningRate"]["schedulers"]
        ]
        return [
            f"epoch={self.epochs}",
            f"Sparsity.pruning_epochs={pruning}",
            f"Sparsity.pruning_steps={pruning_steps}",
            f"Sparsity.tunning_epochs={self.epochs - pruning}",
            f"LearningRate.schedulers={json.dumps(schedulers)}",
        ]


DENSE_START = Method("start", 0.0)
METHODS = [
    Method("dense", 0.0),
    Method("dense_distilled", 0.0),
    *(Method(name, ratio) for name in ("gmp", "gmp_se", "oneshot", "paddleslim", "gmp_distilled") for ratio in PRUNED),
    Method("gmp_unlabelled", 0.75),
]


def result_path(output, method, seed):
    return output / f"{method}_seed{seed}.json"


def is_done(output, method, seed, size):
    """Returns whether a run has a result of the same recipe on the same versions."""
    path = result_path(output, method, seed)
    return path.is_file() and json.loads(path.read_text())["digest"] == method.recipe(size).digest


def run(method, seed, output, size):
    """Trains and evaluates one method with one seed and writes its result; saves the weights of the dense start."""
    import random

    import numpy as np
    import paddle
    from paddle.static import InputSpec

    from paddle_sparse_cb import SparsityCallback, make_plan, measure_sparsity
    from paddle_sparse_cb.callbacks.resume import ResumableCallbacks
    from paddle_sparse_cb.detection.build import build_detector
    from paddle_sparse_cb.detection.network import SetEpoch
    from paddle_sparse_cb.detection.weights import load_matching, read_weights
    from paddle_sparse_cb.recipe.distillation import build_distillation
    from paddle_sparse_cb.utils.files import atomic_write, write_text

    recipe = method.recipe(size)
    for set_seed in (random.seed, np.random.seed, paddle.seed):
        set_seed(seed)
    labels = recipe.distillation is None or recipe.distillation.labels
    detector = build_detector(recipe.content, str(recipe.path), labels=labels)
    network, model, train_loader = detector.network, detector.model, detector.train_loader
    source = recipe.content["pretrain_weights"] if method.name == "start" else str(output / "start")
    load_matching(network, read_weights(source), source)
    shapes = ([1, 3, *recipe.input_size], "float32"), ([1, 2], "float32"), ([1, 1], "int64")
    plan = make_plan(
        network,
        [InputSpec(*shape) for shape in shapes],
        skip=network.prediction_layers(),
        prune_squeeze_excite=method.name == "gmp_se",
    )
    train_loader.dataset.seed = seed
    sparsity = {**(recipe.sparsity or {}), "skip": ()}
    create_callbacks = {
        "gmp": lambda: [SparsityCallback(**sparsity, plan=plan)],
        "gmp_distilled": lambda: [SparsityCallback(**sparsity, plan=plan)],
        "gmp_unlabelled": lambda: [SparsityCallback(**sparsity, plan=plan)],
        "oneshot": lambda: [SparsityCallback(**{**sparsity, **ONE_SHOT}, plan=plan)],
        "paddleslim": lambda: [_paddleslim(network, plan, sparsity, len(train_loader))],
    }
    callbacks = create_callbacks.get(method.name, list)()
    if recipe.distillation:
        # The teacher is the start of this comparison, which all methods share, and not that of a recipe.
        given = replace(recipe.distillation, teacher=source)
        callbacks += build_distillation(replace(recipe, distillation=given), network)
    epochs = recipe.content["epoch"]
    start_time = time.time()
    print(f"{method} seed {seed}: {epochs} epochs of {len(train_loader)} steps", flush=True)
    model.fit(
        train_loader,
        epochs=epochs,
        verbose=2,
        log_freq=50,
        callbacks=[ResumableCallbacks([SetEpoch(), *callbacks], train_loader, seed=seed)],
    )
    seconds = time.time() - start_time
    metrics = model.evaluate(detector.eval_loader, verbose=0)
    if method.name == "start":
        with atomic_write(output / "start.pdparams") as scratch:
            paddle.save(network.state_dict(), str(scratch))
    result = {
        "arm": str(method),
        "way": method.name,
        "ratio": method.ratio,
        "seed": seed,
        "digest": recipe.digest,
        "epochs": epochs,
        "mAP": float(metrics["mAP"]),
        "AP50": float(metrics["AP50"]),
        "zeros": measure_sparsity(network, plan).ratio,
        "seconds": seconds,
    }
    write_text(result_path(output, method, seed), json.dumps(result, indent=1))
    print(json.dumps(result), flush=True)


# Prunes to the target ratio in the first step; all epochs are left to recover.
ONE_SHOT = {"curve": "constant", "stable_epochs": 0, "pruning_epochs": 0}


def _paddleslim(network, plan, sparsity, steps_per_epoch):
    """Returns a callback that calls PaddleSlim's pruner as PaddleDetection's trainer does, on the same layers."""
    import paddle
    from paddleslim import GMPUnstructuredPruner

    from paddle_sparse_cb.utils.layers import named_weights

    planned = {layer.name for layer in plan.pruned}
    keep = {weight.name for name, _, weight in named_weights(network) if name in planned}
    skip = {parameter.name for parameter in network.parameters() if parameter.name not in keep}
    skip |= {layer.full_name() for layer in network.sublayers() if "Norm" in type(layer).__name__}
    configs = {
        "pruning_strategy": "gmp",
        "resume_iteration": 0,
        "pruning_steps": sparsity["pruning_steps"],
        "initial_ratio": sparsity["initial_ratio"],
        **{
            f"{phase}_iterations": sparsity[f"{phase}_epochs"] * steps_per_epoch
            for phase in ("stable", "pruning", "tunning")
        },
    }
    pruner = GMPUnstructuredPruner(
        network,
        ratio=sparsity["ratio"],
        skip_params_func=lambda _: skip,
        prune_params_type="conv1x1_only",
        local_sparsity=True,
        configs=configs,
    )

    class PruneStep(paddle.callbacks.Callback):
        def on_train_batch_end(self, step, logs=None):
            pruner.step()

        def on_epoch_end(self, epoch, logs=None):
            pruner.update_params()

    return PruneStep()


def start_process(output, size, task):
    """Runs one method and seed in a single-threaded process: two such processes are faster than two threads in one."""
    method, seed = task
    command = [sys.executable, __file__, "--output", str(output), "--arm", str(method), "--seed", str(seed)]
    command += [f"--{name}={value}" for name, value in vars(size).items() if value]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    cpu = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    if "AuthenticAMD" in cpu and " avx2 " in cpu:
        # Otherwise Paddle 2.6's MKL selects its slowest kernels on AMD.
        environment.setdefault("MKL_DEBUG_CPU_TYPE", "5")
    log = result_path(output, method, seed).with_suffix(".log")
    with log.open("w") as file:
        done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, env=environment)
    if done.returncode:
        raise SystemExit(f"{method} seed {seed} failed: {log}\n" + "\n".join(log.read_text().splitlines()[-5:]))
    print(f"{time.strftime('%H:%M:%S')} {method} seed {seed} done", flush=True)


def table(results):
    """Renders the available results: means, sample standard deviations, and the loss relative to the dense mean."""
    by_method = {
        str(method): [result for result in results if result["arm"] == str(method)]
        for method in (DENSE_START, *METHODS)
    }
    dense = statistics.mean(result["mAP"] for result in by_method["dense"]) if by_method["dense"] else float("nan")
    rows = []
    for method in (DENSE_START, *METHODS):
        found = by_method[str(method)]
        if not found:
            continue
        scores = [100 * result["mAP"] for result in found]
        mean = statistics.mean(scores)
        spread = f" +- {statistics.stdev(scores):.2f}" if len(scores) > 1 else ""
        lost = "" if method.ratio == 0 else f"{1 - mean / 100 / dense:.1%}"
        rows.append(
            (
                TITLES[method.name],
                f"{method.ratio:.0%}",
                len(scores),
                f"{mean:.2f}{spread}",
                lost,
                f"{100 * statistics.mean(result['AP50'] for result in found):.1f}",
                f"{min(result['zeros'] for result in found):.3%}",
                f"{statistics.mean(result['seconds'] for result in found):.0f}",
            )
        )
    headers = ("method", "ratio", "seeds", "mAP 0.5:0.95", "lost", "AP50", "zeros, least", "s a run")
    return render_table(headers, rows, "lrrlrrrr")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("output/accuracy"), help="folder of the results")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds for each method")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="number of processes at a time")
    parser.add_argument("--epochs", type=int, help="epochs of every method; the phases are scaled to them")
    parser.add_argument("--images", type=int, help="maximum number of images for training and evaluation")
    parser.add_argument("--methods", nargs="+", choices=[str(method) for method in METHODS], help="run only these")
    parser.add_argument("--table", action="store_true", help="print the table of the available results and exit")
    parser.add_argument(
        "--arm",
        choices=[str(method) for method in (DENSE_START, *METHODS)],
        help="run only this method, in this process",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of --arm")
    arguments = parser.parse_args()
    output, size = arguments.output, Size(arguments.epochs, arguments.images)
    output.mkdir(parents=True, exist_ok=True)
    if arguments.arm:
        method = next(method for method in (DENSE_START, *METHODS) if str(method) == arguments.arm)
        return run(method, arguments.seed, output, size)
    if not arguments.table:
        methods = [method for method in METHODS if str(method) in (arguments.methods or map(str, METHODS))]
        run_missing(output, size, arguments.seeds, arguments.jobs, methods)
    paths = [
        result_path(output, method, seed)
        for method in (DENSE_START, *METHODS)
        for seed in range(arguments.seeds)
        if is_done(output, method, seed, size)
    ]
    print(table([json.loads(path.read_text()) for path in paths]))


def run_missing(output, size, seeds, jobs, methods):
    """Runs the methods without a result, seed by seed, so that a complete table is available early."""
    run_task = functools.partial(start_process, output, size)
    if not is_done(output, DENSE_START, 0, size):
        run_task((DENSE_START, 0))
    tasks = [(method, seed) for seed in range(seeds) for method in methods if not is_done(output, method, seed, size)]
    print(f"{len(tasks)} runs to do", flush=True)
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(run_task, tasks))


if __name__ == "__main__":
    main()
