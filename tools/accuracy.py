#!/usr/bin/env python3
"""What pruning costs in mAP, on the garments: `make accuracy`.

Trains the dense model once, and from it every way and ratio for the same further epochs, with the same learning rate
and, seed by seed, the same order of images and the same flips. Each run ends as one small JSON file; a run whose file
is there, made with the same settings, is not run again, so that an interrupted comparison goes on where it was.
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
from dataclasses import dataclass
from pathlib import Path

from paddle_sparse_cb.recipe.schema import read_recipe
from paddle_sparse_cb.utils.tables import render_table

RECIPES = Path(__file__).parent.parent / "recipes"
START = "picodet_s_garments.yml"
PRUNED = {0.75: "picodet_s_garments_sparse75.yml", 0.85: "picodet_s_garments_sparse85.yml"}
WAYS = {"start": "dense start", "dense": "dense, trained on", "gmp": "GMP, this project", "oneshot": "one-shot",
        "paddleslim": "GMP, PaddleSlim"}


@dataclass(frozen=True)
class Arm:
    """One line of the table: a way to prune, and to what ratio."""

    way: str
    ratio: float

    def __str__(self):
        return self.way if self.way in ("start", "dense") else f"{self.way}{self.ratio:.0%}".rstrip("%")

    def recipe(self, size):
        """The recipe whose training this arm runs; those of one ratio differ in the pruner alone."""
        file = RECIPES / (START if self.way == "start" else PRUNED[self.ratio or 0.75])
        recipe = read_recipe(file)
        options = [f"{split}Dataset.sample_num={size.images}" for split in ("Train", "Eval") if size.images]
        if size.epochs and recipe.sparsity:
            options += size.longer(recipe)
        return read_recipe(file, options=options)


@dataclass(frozen=True)
class Size:
    """How much is trained; None is what the recipes say."""

    epochs: int | None = None
    images: int | None = None

    def longer(self, recipe):
        """Options that stretch a sparse recipe's phases and its learning rate over other epochs."""
        before = recipe.content["epoch"]
        pruning = max(1, recipe.sparsity["pruning_epochs"] * self.epochs // before)
        stairs = max(1, recipe.sparsity["pruning_steps"] * self.epochs // before)
        schedulers = [{**scheduler, "max_epochs": self.epochs} if scheduler["name"] == "CosineDecay" else scheduler
                      for scheduler in recipe.content["LearningRate"]["schedulers"]]
        return [f"epoch={self.epochs}", f"Sparsity.pruning_epochs={pruning}", f"Sparsity.pruning_steps={stairs}",
                f"Sparsity.tunning_epochs={self.epochs - pruning}", f"LearningRate.schedulers={json.dumps(schedulers)}"]


BEGIN = Arm("start", 0.0)
ARMS = [Arm("dense", 0.0), *(Arm(way, ratio) for way in ("gmp", "oneshot", "paddleslim") for ratio in PRUNED)]


def result_path(output, arm, seed):
    return output / f"{arm}_seed{seed}.json"


def is_done(output, arm, seed, size):
    """Whether a run's result is there, of the same recipe on the same versions."""
    path = result_path(output, arm, seed)
    return path.is_file() and json.loads(path.read_text())["digest"] == arm.recipe(size).digest


def run(arm, seed, output, size):
    """Trains and measures one arm with one seed, and writes its result; the start's weights too."""
    import random

    import numpy as np
    import paddle
    from paddle.static import InputSpec

    from paddle_sparse_cb import SparsityCallback, make_plan, measure_sparsity
    from paddle_sparse_cb.callbacks.resume import ResumableCallbacks
    from paddle_sparse_cb.detection.build import build_detector
    from paddle_sparse_cb.detection.network import SetEpoch
    from paddle_sparse_cb.detection.weights import load_matching, read_weights
    from paddle_sparse_cb.utils.files import atomic_write, write_text

    recipe = arm.recipe(size)
    for seeding in (random.seed, np.random.seed, paddle.seed):
        seeding(seed)
    detector = build_detector(recipe.content, str(recipe.path))
    network, model, train_loader = detector.network, detector.model, detector.train_loader
    source = recipe.content["pretrain_weights"] if arm.way == "start" else str(output / "start")
    load_matching(network, read_weights(source), source)
    shapes = ([1, 3, *recipe.input_size], "float32"), ([1, 2], "float32"), ([1, 1], "int64")
    pruned = make_plan(network, [InputSpec(*shape) for shape in shapes], skip=network.prediction_layers())
    train_loader.dataset.seed = seed
    sparsity = {**(recipe.sparsity or {}), "skip": ()}
    makers = {"gmp": lambda: [SparsityCallback(**sparsity, plan=pruned)],
              "oneshot": lambda: [SparsityCallback(**{**sparsity, **ONE_SHOT}, plan=pruned)],
              "paddleslim": lambda: [_paddleslim(network, pruned, sparsity, len(train_loader))]}
    callbacks = makers.get(arm.way, list)()
    epochs = recipe.content["epoch"]
    began = time.time()
    print(f"{arm} seed {seed}: {epochs} epochs of {len(train_loader)} steps", flush=True)
    model.fit(train_loader, epochs=epochs, verbose=2, log_freq=50,
              callbacks=[ResumableCallbacks([SetEpoch(), *callbacks], train_loader, seed=seed)])
    seconds = time.time() - began
    found = model.evaluate(detector.eval_loader, verbose=0)
    if arm.way == "start":
        with atomic_write(output / "start.pdparams") as scratch:
            paddle.save(network.state_dict(), str(scratch))
    result = {"arm": str(arm), "way": arm.way, "ratio": arm.ratio, "seed": seed, "digest": recipe.digest,
              "epochs": epochs, "mAP": float(found["mAP"]), "AP50": float(found["AP50"]),
              "zeros": measure_sparsity(network, pruned).ratio, "seconds": seconds}
    write_text(result_path(output, arm, seed), json.dumps(result, indent=1))
    print(json.dumps(result), flush=True)


# All at once in the first step, and all epochs to recover.
ONE_SHOT = {"curve": "constant", "stable_epochs": 0, "pruning_epochs": 0}


def _paddleslim(network, pruned, sparsity, steps):
    """PaddleSlim's own pruner as PaddleDetection's trainer calls it, on the same layers."""
    import paddle
    from paddleslim import GMPUnstructuredPruner

    from paddle_sparse_cb.utils.layers import named_weights

    planned = {layer.name for layer in pruned.pruned}
    keep = {weight.name for name, _, weight in named_weights(network) if name in planned}
    skip = {parameter.name for parameter in network.parameters() if parameter.name not in keep}
    skip |= {layer.full_name() for layer in network.sublayers() if "Norm" in type(layer).__name__}
    configs = {"pruning_strategy": "gmp", "resume_iteration": 0, "pruning_steps": sparsity["pruning_steps"],
               "initial_ratio": sparsity["initial_ratio"],
               **{f"{phase}_iterations": sparsity[f"{phase}_epochs"] * steps
                  for phase in ("stable", "pruning", "tunning")}}
    pruner = GMPUnstructuredPruner(network, ratio=sparsity["ratio"], skip_params_func=lambda _: skip,
                                   prune_params_type="conv1x1_only", local_sparsity=True, configs=configs)

    class Steps(paddle.callbacks.Callback):
        def on_train_batch_end(self, step, logs=None):
            pruner.step()

        def on_epoch_end(self, epoch, logs=None):
            pruner.update_params()

    return Steps()


def start_process(output, size, task):
    """Runs one arm and seed in a process of one thread: two of them do more than two threads in one."""
    arm, seed = task
    command = [sys.executable, __file__, "--output", str(output), "--arm", str(arm), "--seed", str(seed)]
    command += [f"--{name}={value}" for name, value in vars(size).items() if value]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    cpu = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    if "AuthenticAMD" in cpu and " avx2 " in cpu:
        environment.setdefault("MKL_DEBUG_CPU_TYPE", "5")  # else Paddle 2.6's MKL takes its slowest kernels on AMD
    log = result_path(output, arm, seed).with_suffix(".log")
    with log.open("w") as file:
        done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, env=environment)
    if done.returncode:
        raise SystemExit(f"{arm} seed {seed} failed: {log}\n" + "\n".join(log.read_text().splitlines()[-5:]))
    print(f"{time.strftime('%H:%M:%S')} {arm} seed {seed} done", flush=True)


def table(results):
    """The table of the results that are there: means, sample standard deviations, what is lost of the dense mean."""
    of = {str(arm): [result for result in results if result["arm"] == str(arm)] for arm in (BEGIN, *ARMS)}
    dense = statistics.mean(result["mAP"] for result in of["dense"]) if of["dense"] else float("nan")
    rows = []
    for arm in (BEGIN, *ARMS):
        found = of[str(arm)]
        if not found:
            continue
        scores = [100 * result["mAP"] for result in found]
        mean = statistics.mean(scores)
        spread = f" +- {statistics.stdev(scores):.2f}" if len(scores) > 1 else ""
        lost = "" if arm.ratio == 0 else f"{1 - mean / 100 / dense:.1%}"
        rows.append((WAYS[arm.way], f"{arm.ratio:.0%}", len(scores), f"{mean:.2f}{spread}", lost,
                     f"{100 * statistics.mean(result['AP50'] for result in found):.1f}",
                     f"{min(result['zeros'] for result in found):.3%}",
                     f"{statistics.mean(result['seconds'] for result in found):.0f}"))
    headers = ("way", "ratio", "seeds", "mAP 0.5:0.95", "lost", "AP50", "zeros, least", "s a run")
    return render_table(headers, rows, "lrrlrrrr")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("output/accuracy"), help="folder of the results")
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds each arm is run with")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="processes at a time")
    parser.add_argument("--epochs", type=int, help="further epochs of every arm; the phases stretch with them")
    parser.add_argument("--images", type=int, help="train and measure on so many images at most")
    parser.add_argument("--table", action="store_true", help="run nothing, print what is there")
    parser.add_argument("--arm", choices=[str(arm) for arm in (BEGIN, *ARMS)], help="run this one alone, right here")
    parser.add_argument("--seed", type=int, default=0, help="the seed of --arm")
    arguments = parser.parse_args()
    output, size = arguments.output, Size(arguments.epochs, arguments.images)
    output.mkdir(parents=True, exist_ok=True)
    if arguments.arm:
        arm = next(arm for arm in (BEGIN, *ARMS) if str(arm) == arguments.arm)
        return run(arm, arguments.seed, output, size)
    if not arguments.table:
        run_missing(output, size, arguments.seeds, arguments.jobs)
    there = [result_path(output, arm, seed) for arm in (BEGIN, *ARMS) for seed in range(arguments.seeds)
             if is_done(output, arm, seed, size)]
    print(table([json.loads(path.read_text()) for path in there]))


def run_missing(output, size, seeds, jobs):
    """Runs what has no result yet, seed by seed, so that what is there early is a whole table."""
    go = functools.partial(start_process, output, size)
    if not is_done(output, BEGIN, 0, size):
        go((BEGIN, 0))
    tasks = [(arm, seed) for seed in range(seeds) for arm in ARMS if not is_done(output, arm, seed, size)]
    print(f"{len(tasks)} runs to do", flush=True)
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(go, tasks))


if __name__ == "__main__":
    main()
