"""`paddle-sparse`: recipes from the command line.

Exit codes: 0 all is well, 1 a step failed or the promise does not hold, 2 bad input.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
import warnings
from collections.abc import Sequence

from .errors import InputError, PipelineError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="paddle-sparse", description="Sparse training, down to the phone's file.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, what in {
        "plan": "show which weights a recipe prunes, why not the others, and what that makes sparse",
        "train": "train a recipe, export it, optimize it, verify it and report",
        "eval": "measure the mAP of a trained recipe",
        "export": "export a trained recipe again",
        "optimize": "run Paddle-Lite's optimizer on an exported recipe, verify and report",
        "verify": "count the zeros in everything that a recipe made",
        "report": "print the table of a trained recipe",
    }.items():
        command = commands.add_parser(name, help=what, description=what)
        command.add_argument("recipe", metavar="RECIPE", nargs="?", help="a YAML file")
        command.add_argument("-c", "--config", metavar="RECIPE", help="the same, as PaddleDetection's scripts name it")
        command.add_argument("--slim_config", metavar="FILE", help="a YAML file to lay over the recipe")
        command.add_argument("-o", "--opt", metavar="KEY=VALUE", nargs="+", default=[], action="extend",
                             help="values in place of the recipe's, such as -o epoch=4 Sparsity.ratio=0.85")
        command.add_argument("--smoke", action="store_true",
                             help="cut the recipe down to a few steps on packaged photographs, whatever its data are")
        if name == "train":
            _add_training_flags(command)
    return parser


def _add_training_flags(command: argparse.ArgumentParser) -> None:
    """The flags of PaddleDetection's tools/train.py."""
    command.add_argument("--eval", action=argparse.BooleanOptionalAction, default=True,
                         help="measure at each checkpoint, and keep the best (default)")
    command.add_argument("--amp", action="store_true", help="mixed precision, the same as -o amp=true")
    command.add_argument("-r", "--resume", metavar="CHECKPOINT", nargs="?", const="last",
                         help="go on from a checkpoint; without a name from the newest whole one of the recipe, or of "
                         "the dense recipe that it starts from")
    command.add_argument("--resume-changed", action="store_true",
                         help="with --resume: the recipe may be another one than the checkpoint's, and epochs may have "
                         "other lengths")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        arguments: in place of those of the process.

    Returns:
        The exit code.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    options.recipe = options.recipe or options.config
    if not options.recipe and str(getattr(options, "resume", "")).endswith((".yml", ".yaml")):  # --resume RECIPE
        options.recipe, options.resume = options.resume, "last"
    if not options.recipe:
        parser.error("a RECIPE is needed")
    warnings.filterwarnings("ignore", message="Setuptools is replacing distutils")
    try:
        _run(options)
    except InputError as error:
        print(f"paddle-sparse: {error}", file=sys.stderr)
        return 2
    except PipelineError as error:
        print(f"paddle-sparse: {error}", file=sys.stderr)
        return 1
    except OSError as error:  # no room, no permission, no such folder
        print(f"paddle-sparse: {error.filename or ''}: {error.strerror or error}", file=sys.stderr)
        _say_how_to_go_on(options, arguments)
        return 1
    except KeyboardInterrupt as error:
        print(f"paddle-sparse: interrupted{f' by {error}' if str(error) else ''}", file=sys.stderr)
        _say_how_to_go_on(options, arguments)
        return 128 + int(getattr(error, "number", signal.SIGINT))
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in ("ppdet", "pycocotools"):
            raise
        print(f"paddle-sparse: recipes need {missing}: pip install 'paddle_sparse_cb[detection]'", file=sys.stderr)
        return 1
    return 0


def _say_how_to_go_on(options: argparse.Namespace, arguments: Sequence[str] | None) -> None:
    """Prints the command that goes on with a training, whose checkpoints are whole."""
    if options.command != "train":
        return
    given = list(sys.argv[1:] if arguments is None else arguments)
    if options.resume != "last":  # said last, it counts: a checkpoint that it went on from is not the newest now
        given.append("--resume")
    ranks = int(os.environ.get("PADDLE_TRAINERS_NUM", 1)) > 1
    print("go on with: " + ("the same command and --resume" if ranks else f"paddle-sparse {shlex.join(given)}"),
          file=sys.stderr)


def _run(options: argparse.Namespace) -> None:
    from .callbacks.stop_on_signal import Signals
    from .recipe import run  # here: it imports ppdet, and `--help` should not wait for that
    from .recipe.schema import read_recipe
    from .recipe.smoke import smoke
    from .report.schema import read_report
    from .report.table import report_table

    training = options.command == "train"
    amp = ["amp=true"] if training and options.amp else []
    recipe = read_recipe(options.recipe, options.slim_config, [*options.opt, *amp])
    if options.smoke:
        recipe = smoke(recipe)
    if options.command == "eval":
        print(run.evaluate(recipe))
    elif options.command == "report":
        print(report_table(read_report(recipe.output)))
    elif training:
        signals = Signals()
        with signals.handled():
            run.train(recipe, run.How(options.eval, options.resume, options.allow_config_change, signals))
    else:
        steps = {"plan": run.print_plan, "export": run.export, "optimize": run.optimize, "verify": run.check}
        steps[options.command](recipe)


if __name__ == "__main__":
    sys.exit(main())
