"""`paddle-sparse`: recipes from the command line.

Exit codes: 0 success; 1 a step or a verification failed; 2 invalid input; 128 + n ended by signal n.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import select
import shlex
import signal
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from .cli_commands import (
    COMMANDS,
    add_global_flags,
    add_recipe_flags,
    add_verbosity_flags,
    complete_recipes,
    recipe_flags,
)
from .cli_flags import (
    add_allocation_flags,
    add_bench_flags,
    add_plan_flags,
    add_sensitivity_flags,
    add_training_flags,
)
from .cli_measure import bench, measure, read_recipe_of
from .cli_ratios import RATIO_COMMANDS
from .errors import InputError, PipelineError, did_you_mean
from .utils.blas import use_vector_instructions
from .utils.messages import logger

if TYPE_CHECKING:
    from .recipe.schema import Recipe

_COMMANDS = {
    "plan": "show which weights a recipe prunes, why the others are not pruned, and the share of the computation",
    "train": "train a recipe, export it, optimize it, verify it and report",
    "eval": "evaluate a trained recipe",
    "export": "export a trained recipe again",
    "optimize": "run Paddle-Lite's optimizer (and MNN's converter) on an exported recipe, verify and report",
    "verify": "verify all files of a recipe, a checkpoint or folder of checkpoints, or a .pdiparams, .nb or .mnn file",
    "report": "print the table of a trained recipe",
    "bench": "measure the latency of a recipe's models, dense and sparse, or of the models in a folder",
    "sensitivity": "measure how the loss or the mAP suffers when single layers are pruned",
    "allocate": "choose a ratio for each layer from a recipe's sensitivity, or from a sensitivity.json, for a target",
}
# The extra that installs a module.
_EXTRAS = {
    "paddle": "cpu",
    **dict.fromkeys(("PIL", "cv2", "defusedxml", "numba", "ppdet", "pycocotools", "supervision"), "detection"),
}
_FLAGS = {
    "train": add_training_flags,
    "plan": add_plan_flags,
    "bench": add_bench_flags,
    "sensitivity": add_sensitivity_flags,
    "allocate": add_allocation_flags,
}
_NO_EXPORT_FLAG = ("allocate", "plan", "report", "sensitivity")
_WITH_JSON = ("allocate", "eval", "plan", "report", "sensitivity")


def command_parser() -> argparse.ArgumentParser:
    """Returns the parser of all commands; it imports no Paddle."""
    parser = argparse.ArgumentParser(prog="paddle-sparse", description="Sparse training, up to the file for the phone.")
    add_global_flags(parser)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, what in _COMMANDS.items():
        command = commands.add_parser(name, help=what, description=what)
        recipe = command.add_argument(
            "recipe", metavar="RECIPE", nargs="?", help="a YAML file, or a name from paddle-sparse list"
        )
        complete_recipes(recipe)
        command.add_argument("-c", "--config", metavar="RECIPE", help="the same, as in PaddleDetection's scripts")
        add_recipe_flags(command)
        command.add_argument(
            "--smoke", action="store_true", help="reduce the recipe to a few steps on packaged photographs"
        )
        if name not in _NO_EXPORT_FLAG:
            command.add_argument(
                "--export",
                choices=("best", "last"),
                default="best" if name == "train" else None,
                help="the checkpoint to use: the best one at the target ratio (default), or the last; "
                "-o weights=FILE names another one",
            )
        if name in _WITH_JSON:
            command.add_argument("--json", action="store_true", help="print JSON on standard output")
        if name in _FLAGS:
            _FLAGS[name](command)
    for name, other in COMMANDS.items():
        other.add_flags(commands.add_parser(name, help=other.summary, description=other.summary))
    for command in commands.choices.values():
        add_verbosity_flags(command)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        arguments: the arguments in place of those of the process.

    Returns:
        The exit code.
    """
    parser = command_parser()
    given = list(sys.argv[1:] if arguments is None else arguments)
    names = [*_COMMANDS, *COMMANDS]
    if given and not given[0].startswith("-") and given[0] not in names:
        return _fail(f"no such command {given[0]!r}; {did_you_mean(given[0], names)}", 2)
    options = parser.parse_args(given)
    options.given = given
    logger.setLevel(getattr(options, "log_level", logging.INFO))
    if options.command not in COMMANDS:
        options.recipe = options.recipe or options.config
        if not options.recipe and str(getattr(options, "resume", "")).endswith((".yml", ".yaml")):  # --resume RECIPE
            options.recipe, options.resume = options.resume, "last"
        if not options.recipe:
            parser.error("a RECIPE is required")
    use_vector_instructions()
    warnings.filterwarnings("ignore", message="Setuptools is replacing distutils")
    try:
        _run(options)
        sys.stdout.flush()
    except InputError as error:
        return _fail(str(error), 2)
    except PipelineError as error:
        return _fail(str(error), 1)
    except OSError as error:  # disk full, permission denied, missing folder
        if isinstance(error, BrokenPipeError) and _discard_output():
            hint = _resume_command(options, given)
            return _fail("stopped: nobody reads its output any more", 1, hint) if hint else 1
        return _fail(f"{error.filename or ''}: {error.strerror or error}", 1, _resume_command(options, given))
    except KeyboardInterrupt as error:
        return _fail(
            f"interrupted{f' by {error}' if str(error) else ''}",
            128 + int(getattr(error, "number", signal.SIGINT)),
            _resume_command(options, given),
        )
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing == __package__:
            raise
        extra = f"[{_EXTRAS[missing]}]" if missing in _EXTRAS else ""
        hint = "" if options.command == "doctor" else "; paddle-sparse doctor looks for more that is missing"
        return _fail(f"{options.command} needs {missing}: pip install 'paddle_sparse_cb{extra}'{hint}", 1)
    return 0


def _discard_output() -> bool:
    """Whether standard output is a closed pipe, as after `| head -1`; what is still written to it is then discarded."""
    if not hasattr(select, "poll"):  # Windows
        return False
    output = select.poll()
    output.register(sys.stdout, 0)
    if not any(event & (select.POLLERR | select.POLLHUP) for _, event in output.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the interpreter complains at its end
    return True


def _fail(message: str, code: int, hint: str = "") -> int:
    print(f"paddle-sparse: {message}", file=sys.stderr)
    if hint:
        print(hint, file=sys.stderr)
    return code


def _resume_command(options: argparse.Namespace, given: list[str]) -> str:
    """Returns a line with the command that resumes a training; empty if there is no checkpoint to resume from."""
    recipe: Recipe | None = getattr(options, "loaded", None)
    if options.command == "sensitivity":
        return "the same command measures what is left"
    if options.command != "train" or recipe is None:
        return ""
    from .recipe.resume import can_resume

    if not can_resume(recipe):
        return ""
    if options.resume != "last":  # given last, it takes precedence: the checkpoint resumed from is not the newest now
        given = [*given, "--resume"]
    if int(os.environ.get("PADDLE_TRAINERS_NUM", 1)) > 1:
        return "resume with: the same command and --resume"
    return f"resume with: paddle-sparse {shlex.join(given)}"


def _run(options: argparse.Namespace) -> None:
    if options.command in COMMANDS:
        COMMANDS[options.command].run(options)
        return
    if options.command == "verify":
        from .recipe.verify_files import is_verifiable, verify_files

        if is_verifiable(options.recipe):
            verify_files(Path(options.recipe))
            return
    if options.command == "bench":
        bench(options)
        return
    if options.command in RATIO_COMMANDS:
        RATIO_COMMANDS[options.command](options)
        return
    recipe = read_recipe_of(options)
    options.loaded = recipe
    if options.command == "train":
        _train(recipe, options)
        return
    from .recipe import commands
    from .report.schema import read_report
    from .report.table import report_table

    if options.command == "report":
        report = read_report(recipe.output)
        print(json.dumps(report, indent=1) if options.json else report_table(report))
    elif options.command == "plan":
        if not measure(recipe, options):
            commands.print_plan(recipe, options.json)
    elif options.command == "eval":
        commands.print_evaluation(recipe, options.export, options.json)
    else:
        steps = {"export": commands.export, "optimize": commands.optimize, "verify": commands.verify}
        steps[options.command](recipe, options.export)


def _train(recipe: Recipe, options: argparse.Namespace) -> None:
    from .callbacks.stop_on_signal import Signals
    from .recipe.next_steps import next_steps
    from .recipe.train import TrainOptions, train
    from .utils.distributed import is_rank_zero

    start = perf_counter()
    signals = Signals()
    with signals.handled():
        train(
            recipe,
            TrainOptions(
                options.eval,
                options.resume,
                options.allow_config_change,
                options.export,
                options.overwrite,
                signals,
                shlex.join(["paddle-sparse", *options.given]),
            ),
        )
    if is_rank_zero():  # which has written the report that this reads
        logger.info("\n" + next_steps(recipe, perf_counter() - start, recipe_flags(options)))


if __name__ == "__main__":
    sys.exit(main())
