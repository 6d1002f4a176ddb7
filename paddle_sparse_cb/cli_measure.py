"""What `paddle-sparse bench` and `paddle-sparse plan --measure` do with their flags.

Nothing here imports Paddle before a command runs, so that `--help` is immediate.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cli_flags import parse_block, parse_speedup, split_list
from .errors import InputError
from .utils.messages import logger
from .utils.native_output import stdout_to_stderr

if TYPE_CHECKING:
    from .recipe.schema import Recipe


def measure(recipe: Recipe, options: argparse.Namespace) -> bool:
    """Runs `paddle-sparse plan RECIPE --measure`; returns whether it was asked for."""
    ratios = split_list("--ratio", options.ratio, float)
    blocks = split_list("--block", options.block, parse_block)
    if not options.measure:
        if ratios or blocks:
            raise InputError("--ratio and --block need --measure")
        return False
    from .recipe.plan_measure import BLOCKS, RATIOS, PlanRequest, measure_plan
    from .report.plan_latency import plan_latency_table

    with stdout_to_stderr():
        result = measure_plan(recipe, PlanRequest(ratios or RATIOS, blocks or BLOCKS, log=log_line))
    print(json.dumps(result, indent=1) if options.json else plan_latency_table(result))
    return True


def read_recipe_of(options: argparse.Namespace) -> Recipe:
    """Reads the recipe that a command was given, with its flags."""
    from .recipe.catalogue import find_recipe
    from .recipe.schema import read_recipe  # imports Paddle and ppdet, which `--help` does not need
    from .recipe.smoke import smoke

    amp = ["amp=true"] if options.command == "train" and options.amp else []
    recipe = read_recipe(find_recipe(options.recipe), options.slim_config, [*options.opt, *amp])
    return smoke(recipe) if options.smoke else recipe


def bench(options: argparse.Namespace) -> None:
    """Runs `paddle-sparse bench`: prints the table, or only JSON; all other output goes to standard error."""
    fail_under = None if options.fail_under is None else parse_speedup(options.fail_under)
    from .recipe.bench_output import check_speedup, render, render_captions

    with stdout_to_stderr():
        on_device = options.runner or options.adb is not None or options.cluster is not None
        result = _bench_on_device(options) if on_device else _bench_here(options)
        if options.json:
            print(render_captions(result))
    print(render(result, options.json))
    if fail_under is not None:
        check_speedup(result, fail_under)


def _bench_here(options: argparse.Namespace) -> dict[str, Any]:
    threads = split_list("--threads", options.threads, int)
    ratios = split_list("--ratio", options.ratio, float)
    blocks = split_list("--block", options.block, parse_block)
    from .recipe.bench_folder import SECONDS, BenchRequest, bench_folder

    request = BenchRequest(
        threads,
        SECONDS if options.seconds is None else options.seconds,
        ratios,
        blocks,
        evaluate=options.eval,
        export=options.export,
        layers=options.layers,
        log=log_line,
    )
    if Path(options.recipe).is_dir():
        return bench_folder(Path(options.recipe), request)
    from .recipe.bench import bench_recipe  # imports ppdet, which a folder does not need

    return bench_recipe(read_recipe_of(options), request)


def _bench_on_device(options: argparse.Namespace) -> dict[str, Any]:
    for name in ("ratio", "block", "seconds", "eval", "layers", "export"):
        if getattr(options, name) not in (None, False):
            raise InputError(f"--{name}: --runner and --adb time the files that exist, a fixed number of times")
    threads = split_list("--threads", options.threads, int) or [1]
    clusters = split_list("--cluster", options.cluster, str) or ["any"]
    from .deploy.bench.devices import DeviceOptions
    from .recipe.bench_device import bench_folder_on_device, bench_recipe_on_device

    device = DeviceOptions(options.runner, options.adb, threads, clusters, log_line)
    if Path(options.recipe).is_dir():
        return bench_folder_on_device(Path(options.recipe), device)
    return bench_recipe_on_device(read_recipe_of(options), device)


def log_line(line: str) -> None:
    """Prints a line about the progress to standard error, unless `-q` was given."""
    if logger.isEnabledFor(logging.INFO):
        print(line, file=sys.stderr, flush=True)
