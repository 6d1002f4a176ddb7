#!/usr/bin/env python3
"""Compares what `paddle-sparse plan --measure` predicts with the trained model: `tools/compare_plan.py RECIPE...`.

Each recipe must have been trained. Its ratio and block are measured as before the training, on untrained weights that
are pruned at once, and then as `paddle-sparse bench` does, with the trained weights; both on MNN with one thread.
Prints both, and exits with 1 if size, latency or speed-up differ by more than 10%. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from paddle_sparse_cb.errors import InputError
from paddle_sparse_cb.recipe.bench import bench_recipe
from paddle_sparse_cb.recipe.bench_folder import BenchRequest
from paddle_sparse_cb.recipe.plan_measure import PlanRequest, measure_plan
from paddle_sparse_cb.recipe.schema import Recipe, read_recipe
from paddle_sparse_cb.utils.native_output import stdout_to_stderr
from paddle_sparse_cb.utils.tables import render_table

LIMIT = 0.1
HEADERS = ("recipe", "quantity", "plan --measure", "trained", "difference", "")


def compare(recipe: Recipe) -> list[tuple[str, ...]]:
    """Measures a trained recipe both ways and returns a row of `HEADERS` for each quantity."""
    settings = recipe.pruning_config()
    block = (settings.sparse_block[0], settings.sparse_block[1])
    with stdout_to_stderr():
        predicted = measure_plan(recipe, PlanRequest([settings.ratio], [block]))["rows"]
        measured = bench_recipe(recipe, BenchRequest(threads=[1], blocks=[block]))["rows"]
    trained = [row for row in measured if row["runtime"] == "MNN" and row["trained"]]
    if [row["kind"] for row in trained] != ["dense", "sparse"]:
        raise InputError(f"{recipe.path}: not trained yet, or without a sparse model")
    pairs = {
        "dense ms": (predicted[0]["ms"], trained[0]["ms"]),
        "sparse ms": (predicted[1]["ms"], trained[1]["ms"]),
        "dense ms / sparse ms": (1 + predicted[1]["speedup"], 1 + trained[1]["speedup"]),
        "sparse .mnn MB": (predicted[1]["mb"], trained[1]["mb"]),
    }
    nb = recipe.output / "model_sparse.nb"
    if nb.is_file() and predicted[1]["nb_mb"] is not None:
        pairs["sparse .nb MB"] = (predicted[1]["nb_mb"], nb.stat().st_size / 1e6)
    disturbed = any(row["disturbed"] for row in (*predicted, *trained))
    return [
        (
            recipe.name,
            f"{quantity}{'*' if disturbed and 'ms' in quantity else ''}",
            f"{before:.3f}",
            f"{after:.3f}",
            f"{before / after - 1:+.1%}",
            "" if abs(before / after - 1) <= LIMIT else f"more than {LIMIT:.0%}",
        )
        for quantity, (before, after) in pairs.items()
    ]


def main() -> int:
    """Compares the recipes that are named; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="+", type=Path, help="a trained sparse recipe")
    parser.add_argument("-o", "--opt", nargs="+", default=[], help="values that replace those of all recipes")
    arguments = parser.parse_args()
    try:
        rows = [row for path in arguments.recipe for row in compare(read_recipe(path, None, arguments.opt))]
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(render_table(HEADERS, rows, "llrrrl"))
    if any("*" in row[1] for row in rows):
        print("* disturbed by other work on this machine")
    return 1 if any(row[-1] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
