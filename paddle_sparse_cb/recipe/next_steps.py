"""What `paddle-sparse train` prints last: the result in a line, and the commands to copy."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from ..report.schema import read_report
from ..report.table import percent
from .catalogue import command_name
from .schema import Recipe


def next_steps(recipe: Recipe, seconds: float, flags: Sequence[str] = ()) -> str:
    """Describes a finished training and what to do next.

    Args:
        recipe: the recipe, whose report exists.
        seconds: the time that the training took, with all steps after it.
        flags: what the next commands need to find the same recipe, such as `["-o", "save_dir=runs"]`.
    """
    name, more = shlex.quote(command_name(recipe.path)), shlex.join(flags)
    steps = {
        f"predict {name} IMAGE ... {more}": "boxes in images, as pictures",
        f"verify {name} {more}": "compare all files with the plan",
        f"report {name} {more}": "the table above",
    }
    if recipe.dense:
        steps[f"predict {name} IMAGE ... --compare dense {more}"] = "dense beside sparse"
    commands = {f"paddle-sparse {step.strip()}": what for step, what in steps.items()}
    curves = recipe.output / "tensorboard"
    if curves.is_dir():
        commands[f"tensorboard --logdir {shlex.quote(str(curves))}"] = "curves"
    width = max(map(len, commands))
    lines = [f"  {command:{width}}  # {what}" for command, what in commands.items()]
    return "\n".join([_result(recipe, seconds), "next:", *lines])


def _result(recipe: Recipe, seconds: float) -> str:
    rows = [_describe(row) for row in reversed(read_report(recipe.output)["rows"])]
    return f"{recipe.name}: {'; '.join(rows)}; {seconds:.0f} s"


def _describe(row: dict[str, Any]) -> str:
    size = "" if row["nb_bytes"] is None else f", .nb {row['nb_bytes'] / 1e6:.2f} MB"
    sparsity = f"{row['sparsity']:.0%} " if row["sparsity"] else ""
    return f"{sparsity}{row['name']} mAP {percent(row['map'])}{size}"
