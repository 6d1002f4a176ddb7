"""Commands of `paddle-sparse` that are not steps of a recipe: their flags, and what they call.

Nothing here imports Paddle before a command runs, so that `--help` is immediate.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ._version import __version__

# What the shells complete, for the attribute `complete` that shtab reads from argparse's actions.
_FILES = {"bash": "_shtab_compgen_files", "zsh": "_files", "tcsh": "f"}
_RECIPES = {**_FILES, "bash": "_paddle_sparse_recipes"}


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


class _PrintCompletion(argparse.Action):
    """Prints the script with which a shell completes commands, flags and recipes."""

    def __call__(self, parser: argparse.ArgumentParser, _: Any, shell: Any, option_string: str | None = None) -> None:
        import shtab  # here: most commands do not need it

        from .recipe.catalogue import list_recipes

        names = " ".join(list_recipes())
        function = f'_paddle_sparse_recipes() {{ compgen -W "{names}" -- $1; _shtab_compgen_files $1; }}'
        print(shtab.complete(parser, shell, preamble=function if shell == "bash" else ""))
        parser.exit()


def add_verbosity_flags(parser: argparse.ArgumentParser) -> None:
    """Adds `-q` and `-v`, which may stand before and after a command."""
    flags = parser.add_mutually_exclusive_group()
    for short, long, level, shown in (
        ("-q", "--quiet", "WARNING", "show warnings and results only"),
        ("-v", "--verbose", "DEBUG", "show every training step, and where the time goes"),
    ):
        flags.add_argument(
            short, long, dest="log_level", action="store_const", const=level, default=argparse.SUPPRESS, help=shown
        )


def add_global_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that need no command."""
    add_verbosity_flags(parser)
    parser.add_argument("--version", action="version", version=f"paddle_sparse_cb {__version__}")
    parser.add_argument(
        "--print-completion",
        action=_PrintCompletion,
        choices=("bash", "zsh", "tcsh"),
        metavar="SHELL",
        help='print a completion script: eval "$(paddle-sparse --print-completion bash)"',
    )


def complete_recipes(action: argparse.Action) -> None:
    """Has the shells complete an argument that names a recipe."""
    action.complete = _RECIPES  # type: ignore[attr-defined]


def recipe_flags(options: argparse.Namespace) -> list[str]:
    """Returns the flags with which another command finds the same recipe."""
    flags = ["--smoke"] if options.smoke else []
    flags += ["--slim_config", options.slim_config] if options.slim_config else []
    return [*flags, "-o", *options.opt] if options.opt else flags


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
    complete_recipes(model)
    images.complete = _FILES  # type: ignore[attr-defined]


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


def _doctor_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print JSON on standard output")


def _doctor(options: argparse.Namespace) -> None:
    from .doctor.examine import examine, print_findings

    print_findings(examine(), options.json)


def _no_flags(command: argparse.ArgumentParser) -> None:
    """Some commands have none."""


def _list(_: argparse.Namespace) -> None:
    from .recipe.catalogue import list_recipes
    from .utils.tables import render_table

    print(render_table(("recipe", "trains"), list_recipes().items(), "ll"))


def _init_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="images annotated in COCO's, Pascal VOC's or YOLO's way",
    )
    command.add_argument("--name", help="the name of the recipes (default: that of the data folder)")
    command.add_argument(
        "--output", type=Path, default=Path(), metavar="FOLDER", help="where they are written (default: here)"
    )


def _init(options: argparse.Namespace) -> None:
    from .recipe.init import init

    init(options.data, options.output, options.name)


def _check_flags(command: argparse.ArgumentParser) -> None:
    complete_recipes(command.add_argument("recipe", metavar="RECIPE", help="a YAML file, or a name"))
    command.add_argument("--json", action="store_true", help="print JSON on standard output")
    add_recipe_flags(command)


def _check(options: argparse.Namespace) -> None:
    from .recipe.check import check

    check(options.recipe, options.slim_config, options.opt, options.json)


COMMANDS = {
    "init": Command("look at annotated images and write a dense and a sparse recipe for them", _init_flags, _init),
    "check": Command("report all that is wrong with a recipe and its data at once", _check_flags, _check),
    "predict": Command(
        "find objects in images with a trained recipe or an exported model; write pictures or JSON",
        _predict_flags,
        _predict,
    ),
    "list": Command("list the recipes that come with the package", _no_flags, _list),
    "doctor": Command("look for what is missing or does not work together, and say what to do", _doctor_flags, _doctor),
}
