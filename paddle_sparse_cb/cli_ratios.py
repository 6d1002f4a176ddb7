"""What `paddle-sparse sensitivity` and `paddle-sparse allocate` do with their flags.

Nothing here imports Paddle before a command runs, so that `--help` is immediate.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

from .cli_commands import recipe_flags
from .cli_flags import split_list
from .cli_measure import log_line, read_recipe_of
from .errors import InputError
from .utils.native_output import stdout_to_stderr


def sensitivity(options: argparse.Namespace) -> None:
    """Runs `paddle-sparse sensitivity`: prints a table, or only JSON; progress goes to standard error."""
    ratios = split_list("--ratio", options.ratio, float)
    start = perf_counter()
    from .recipe.sensitivity import RATIOS, SensitivityRequest, measure_recipe

    request = SensitivityRequest(ratios or RATIOS, options.metric, options.images, log_line)
    with stdout_to_stderr():
        recipe = read_recipe_of(options)
        measured, files = measure_recipe(recipe, request)
    if options.json:
        print(json.dumps(measured.to_dict(), indent=1, allow_nan=False))
        return
    following = ["paddle-sparse", "allocate", options.recipe, *recipe_flags(options), "--macs-of-ratio"]
    print(f"{measured}\n\n{', '.join(map(str, files))} written ({perf_counter() - start:.0f} s)")
    print(f"ratios from it: {shlex.join(following)} {recipe.pruning_config().ratio:g}")


def allocate(options: argparse.Namespace) -> None:
    """Runs `paddle-sparse allocate` for a recipe or a `sensitivity.json`: writes a YAML file and prints a table."""
    from .recipe.allocate import Target, allocate_file, allocate_recipe, write_ratios

    target = Target(
        options.target_sparsity, options.target_macs, options.macs_of_ratio, options.target_latency, options.costs
    )
    target.check()
    with stdout_to_stderr() if options.json else contextlib.nullcontext():
        if str(options.recipe).endswith(".json"):
            if options.opt or options.slim_config or options.smoke:
                raise InputError(f"{options.recipe}: -o, --slim_config and --smoke are for recipes")
            source, allocation = Path(options.recipe), allocate_file(Path(options.recipe), target)
            output, following = source.with_name("ratios.yml"), "paddle-sparse train RECIPE"
        else:
            recipe = read_recipe_of(options)
            source, allocation = allocate_recipe(recipe, target)
            output = recipe.output / "ratios.yml"
            following = shlex.join(["paddle-sparse", "train", options.recipe, *recipe_flags(options)])
        output = options.output or output
        write_ratios(output, allocation, source)
    if options.json:
        print(json.dumps({**allocation.to_dict(), "file": str(output)}, indent=1, allow_nan=False))
    elif options.slim_config:  # there can be one slim file
        print(f"{allocation}\n\n{output} written; name it in _BASE_ of a recipe")
    else:
        print(
            f"{allocation}\n\n{output} written\ntrain with them: {following} --slim_config {shlex.quote(str(output))}"
        )


RATIO_COMMANDS: dict[str, Callable[[argparse.Namespace], Any]] = {"sensitivity": sensitivity, "allocate": allocate}
