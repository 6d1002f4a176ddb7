#!/usr/bin/env python3
"""Measures the training steps of a recipe on this CPU: `tools/bench_step.py RECIPE`.

Compares Paddle as it is with what this package adds: MKL's vector instructions on AMD processors (`utils.blas`), and
depthwise convolutions of its own (`detection.depthwise`). Each way trains in processes of its own, which alternate.
Prints the median time of a step on one thread, and of the fastest way on two threads, which one may compare with two
processes of one thread each.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

from paddle_sparse_cb.errors import InputError
from paddle_sparse_cb.utils.blas import MKL_CPU_TYPE, use_vector_instructions
from paddle_sparse_cb.utils.tables import render_table
from paddle_sparse_cb.utils.validation import check_count

WARM_UP = 5  # steps of each process: numba compiles, and Paddle chooses its algorithms
_MARK = "seconds: "


@dataclass(frozen=True)
class Way:
    """A way to train.

    Attributes:
        title: its name in the table.
        vectors: with MKL's vector instructions on AMD processors.
        depthwise: with this package's depthwise convolutions.
        threads: of Paddle's operators.
    """

    title: str
    vectors: bool
    depthwise: bool
    threads: int = 1


WAYS = (
    Way("Paddle", False, False),
    Way("with vector instructions in MKL", True, False),
    Way("and own depthwise convolutions", True, True),
    Way("the same on two threads", True, True, 2),
)


def train(recipe: str, depthwise: bool, steps: int) -> None:
    """Trains for some steps and prints the seconds of each after the first ones."""
    import paddle

    from paddle_sparse_cb.detection.network import SetEpoch
    from paddle_sparse_cb.recipe.build import build
    from paddle_sparse_cb.recipe.schema import read_recipe

    trained = build(read_recipe(recipe))
    if not depthwise:
        for layer in trained.network.sublayers():
            vars(layer).pop("forward", None)

    class Clock(paddle.callbacks.Callback):
        steps = 0

        def on_train_batch_begin(self, step: int, logs: Any = None) -> None:
            self.start = time.perf_counter()

        def on_train_batch_end(self, step: int, logs: Any = None) -> None:
            self.steps += 1
            if self.steps > WARM_UP:
                print(f"{_MARK}{time.perf_counter() - self.start}", flush=True)

    count = WARM_UP + steps
    epochs = -(-count // len(trained.train_loader))
    trained.model.fit(trained.train_loader, epochs=epochs, num_iters=count, verbose=0, callbacks=[SetEpoch(), Clock()])


def time_steps(way: Way, recipe: str, steps: int) -> list[float]:
    """Returns the seconds of steps in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(way.threads)}
    if not way.vectors:
        environment.pop(MKL_CPU_TYPE, None)
    command = [sys.executable, __file__, recipe, f"--steps={steps}", f"--child={int(way.depthwise)}"]
    done = subprocess.run(command, env=environment, text=True, stdout=subprocess.PIPE)
    if done.returncode:
        raise SystemExit(f"{recipe}: cannot be trained")
    return [float(line[len(_MARK) :]) for line in done.stdout.splitlines() if line.startswith(_MARK)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="a recipe whose data are there")
    parser.add_argument("--steps", type=int, default=20, help="steps of each process that are timed; default: 20")
    parser.add_argument("--rounds", type=int, default=3, help="processes for each way; default: 3")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    try:
        for name in ("steps", "rounds"):
            check_count(f"--{name}", getattr(options, name), least=1)
    except InputError as error:
        parser.error(str(error))
    if options.child is not None:
        try:
            train(options.recipe, bool(options.child), options.steps)
        except InputError as error:
            raise SystemExit(str(error)) from None
        return
    use_vector_instructions()
    seconds: dict[Way, list[float]] = {way: [] for way in WAYS}
    for _ in range(options.rounds):
        for way in WAYS:
            seconds[way] += time_steps(way, options.recipe, options.steps)
    medians = {way: statistics.median(times) for way, times in seconds.items()}
    rows = [
        (way.title, f"{1000 * median:.0f}", f"{1 / median:.2f}", f"{medians[WAYS[0]] / median:.2f}x")
        for way, median in medians.items()
    ]
    print(render_table(("training step", "ms", "steps per second", "as fast as Paddle"), rows, "lrrr"))


if __name__ == "__main__":
    main()
