#!/usr/bin/env python3
"""Compares the mAP of pruning methods on the garments data set: `make accuracy`.

Trains the dense start once, and from it every method for the same number of epochs, with the same learning rate and,
for each seed, the same order of images and the same flips. Prints a table of means, and of differences seed by seed.

A method is a pruner (dense, gmp, oneshot, paddleslim) with levers, such as gmp+distill; without --methods, those of the
documentation are compared. Each run writes one small JSON file. Runs that have one from the same recipe are skipped, so
that an interrupted comparison can be resumed; one seed follows the other, so that an interrupted one is balanced.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from accuracy_methods import ALLOCATED, BLOCKS, DEFAULT, DENSE_START, LEVERS, RATIOS, Method, Size, combine
from accuracy_run import result_path
from accuracy_table import table

from paddle_sparse_cb.errors import InputError
from paddle_sparse_cb.utils.blas import use_vector_instructions
from paddle_sparse_cb.utils.validation import check_count

QUICK = Size(epochs=2, images=24, batch=2)
_RUN = Path(__file__).with_name("accuracy_run.py")


def read_result(output: Path, method: Method, seed: int, size: Size) -> dict[str, Any] | None:
    """Returns the result of a run; None without one of the same recipe on the same versions."""
    path = result_path(output, method, seed)
    if not path.is_file():
        return None
    try:
        result: dict[str, Any] = json.loads(path.read_text())
        is_whole = all(math.isfinite(result[name]) for name in ("mAP", "AP50", "zeros", "seconds"))
        return result if is_whole and result["digest"] == method.digest(size) else None
    except (LookupError, RecursionError, TypeError, ValueError) as error:
        print(f"{path}: damaged and left out: {type(error).__name__} {error}", file=sys.stderr)
        return None


def read_results(output: Path, size: Size) -> list[dict[str, Any]]:
    """Returns all results of this size in the folder, whatever methods this call selects."""
    read = []
    for path in sorted(output.glob("*_seed*.json")):
        name, _, seed = path.stem.rpartition("_seed")
        with contextlib.suppress(InputError, ValueError):  # a method of another version, or a file of another kind
            read.append(read_result(output, Method.parse(name), int(seed), size))
    return [result for result in read if result]


def start_process(output: Path, size: Size, task: tuple[Method, int]) -> None:
    """Runs one method and seed in a single-threaded process: two such processes are faster than two threads in one."""
    method, seed = task
    command = [sys.executable, str(_RUN), str(method), str(seed), "--output", str(output)]
    command += [f"--{name}={value}" for name, value in vars(size).items() if value]
    use_vector_instructions()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    log = result_path(output, method, seed).with_suffix(".log")
    with log.open("w") as file:
        done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, env=environment)
    if done.returncode:
        raise SystemExit(f"{method} seed {seed} failed: {log}\n" + "\n".join(log.read_text().splitlines()[-5:]))
    print(f"{time.strftime('%H:%M:%S')} {method} seed {seed} done", flush=True)


def run_missing(output: Path, size: Size, seeds: Sequence[int], jobs: int, methods: Sequence[Method]) -> None:
    """Runs the methods without a result, seed by seed."""
    run_task = functools.partial(start_process, output, size)
    if not read_result(output, DENSE_START, 0, size):
        run_task((DENSE_START, 0))
    tasks = [(method, seed) for seed in seeds for method in methods if not read_result(output, method, seed, size)]
    print(f"{len(tasks)} runs to do", flush=True)
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(run_task, tasks))


def _block(text: str) -> tuple[int, int]:
    rows, _, columns = text.partition("x")
    return int(rows), int(columns)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    levers = ", ".join(f"+{name} ({lever.title})" for name, lever in LEVERS.items())
    parser.add_argument("--methods", nargs="+", help=f"such as dense gmp gmp+distill+se; levers: {levers}")
    parser.add_argument("--ratios", nargs="+", type=float, help="target ratios in percent; default: 75 85 90")
    parser.add_argument("--blocks", nargs="+", type=_block, help="such as 1x1 4x1; with --methods, default: 1x1")
    parser.add_argument("--seeds", type=int, help="number of seeds for each method; default: 5")
    parser.add_argument("--first-seed", type=int, default=0, help="the first of them")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="number of processes at a time")
    parser.add_argument("--epochs", type=int, help="epochs of every method; the phases are scaled to them")
    parser.add_argument("--images", type=int, help="maximum number of images for training and evaluation")
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"{QUICK.epochs} epochs of {QUICK.images} images, which only test the comparison; default: 75%%, 2 seeds",
    )
    parser.add_argument("--output", type=Path, help="folder of the results; default: output/accuracy[_quick]")
    parser.add_argument("--table", action="store_true", help="print the table of the available results and exit")
    return parser


def select(names: Sequence[str] | None, ratios: Sequence[float] | None, blocks: Any) -> list[Method]:
    """Returns the methods of the command line.

    Args:
        names: pruners with levers; None selects from `DEFAULT`.
        ratios: target ratios in percent; None are all.
        blocks: rows and columns; None are all of `DEFAULT`, or single weights of named methods.

    Raises:
        InputError: an unknown method, or none is left.
    """
    targets = RATIOS if ratios is None else [ratio / 100 for ratio in ratios]
    if names:
        found = combine(names, targets, blocks or BLOCKS[:1])
    else:
        found = [
            one for one in DEFAULT if one.ratio in (0, *targets) and (one.ratio == 0 or one.block in (blocks or BLOCKS))
        ]
    if not found:
        allocated = ", ".join(f"{ratio:.0%}" for ratio in ALLOCATED)
        raise InputError(
            "no method is left: channels are permuted for --blocks such as 4x1, a dense model has no masks, and there "
            f"are ratios per layer for {allocated}"
        )
    return found


def main(given: Sequence[str] | None = None) -> None:
    """Runs what the command line selects and prints the table of all results."""
    parser = _parser()
    arguments = parser.parse_args(given)
    size = QUICK if arguments.quick else Size(arguments.epochs, arguments.images)
    output = arguments.output or Path("output/accuracy_quick" if arguments.quick else "output/accuracy")
    try:
        ratios = arguments.ratios or ([75.0] if arguments.quick else None)
        methods = select(arguments.methods, ratios, arguments.blocks)
        for name in ("seeds", "jobs", "epochs", "images"):
            if getattr(arguments, name) is not None:
                check_count(f"--{name}", getattr(arguments, name), least=1)
        for method in (DENSE_START, *methods):
            method.digest(size)  # its recipe is read
    except InputError as error:
        parser.error(str(error))
    output.mkdir(parents=True, exist_ok=True)
    if not arguments.table:
        count = arguments.seeds or (2 if arguments.quick else 5)
        seeds = range(arguments.first_seed, arguments.first_seed + count)
        run_missing(output, size, seeds, arguments.jobs, methods)
    print(table(read_results(output, size)))


if __name__ == "__main__":
    main()
