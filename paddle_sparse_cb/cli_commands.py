"""Commands of `paddle-sparse` that are not steps of a recipe: their flags, and what they call.

Nothing here imports Paddle before a command runs, so that `--help` is immediate.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# What shtab completes with names of files, for an attribute `complete` of argparse's actions.
FILE = {"bash": "_shtab_compgen_files", "zsh": "_files", "tcsh": "f"}


@dataclass(frozen=True)
class Command:
    """A command.

    Attributes:
        summary: a line for `--help`.
        add_flags: adds its arguments to a parser.
        run: runs it.
    """

    summary: str
    add_flags: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], None]


def add_recipe_flags(command: argparse.ArgumentParser) -> None:
    """Adds the flags that change a recipe, as PaddleDetection's scripts have them."""
    command.add_argument("--slim_config", metavar="FILE", help="a YAML file to merge over the recipe")
    command.add_argument(
        "-o",
        "--opt",
        metavar="KEY=VALUE",
        nargs="+",
        default=[],
        action="extend",
        help="values that replace the recipe's, such as -o epoch=4 Sparsity.ratio=0.85",
    )


def _predict_flags(command: argparse.ArgumentParser) -> None:
    model = command.add_argument(
        "model",
        metavar="RECIPE|MODEL",
        help="a trained recipe, or an exported model: its folder, such as output/<recipe>/inference, or its file",
    )
    images = command.add_argument(
        "images", metavar="IMAGE", nargs="+", help="image files, folders of images, or patterns such as 'photos/*.jpg'"
    )
    command.add_argument(
        "--threshold", type=float, metavar="SCORE", help="the least score of a box (default: the model's, usually 0.5)"
    )
    command.add_argument(
        "--compare",
        metavar="RECIPE|MODEL",
        help="draw the boxes of another recipe, model or .pdparams file of the same recipe beside; 'dense' is the "
        "dense recipe that RECIPE starts from",
    )
    command.add_argument(
        "--output",
        type=Path,
        metavar="FOLDER",
        help="where the pictures are written (default: output/predictions; with --json none are written by default)",
    )
    command.add_argument("--json", action="store_true", help="print the boxes as JSON on standard output")
    command.add_argument(
        "--export", choices=("best", "last"), help="the checkpoint of a recipe (default: the one that was exported)"
    )
    add_recipe_flags(command)
    for action in (model, images):
        action.complete = FILE  # type: ignore[attr-defined]


def _predict(options: argparse.Namespace) -> None:
    from .recipe.predict_files import OUTPUT, PredictOptions, predict_files

    predict_files(
        options.images,
        PredictOptions(
            options.model,
            options.compare,
            options.threshold,
            options.output or (None if options.json else OUTPUT),
            options.json,
            options.opt,
            options.export,
            options.slim_config,
        ),
    )


COMMANDS = {
    "predict": Command(
        "find objects in images with a trained recipe or an exported model; write pictures or JSON",
        _predict_flags,
        _predict,
    ),
}
