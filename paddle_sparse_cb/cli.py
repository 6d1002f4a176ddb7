"""`paddle-sparse`: recipes from the command line.

Exit codes: 0 success; 1 a step or a verification failed; 2 invalid input; 128 + n ended by signal n.
"""

from __future__ import annotations

import argparse
import os
import select
import shlex
import signal
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cli_flags import add_bench_flags, add_plan_flags, add_training_flags, parse_block, parse_speedup, split_list
from .errors import InputError, PipelineError
from .utils.native_output import stdout_to_stderr

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
}
_NO_EXPORT_FLAG = ("plan", "report")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="paddle-sparse", description="Sparse training, up to the file for the phone.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, what in _COMMANDS.items():
        command = commands.add_parser(name, help=what, description=what)
        command.add_argument("recipe", metavar="RECIPE", nargs="?", help="a YAML file")
        command.add_argument("-c", "--config", metavar="RECIPE", help="the same, as in PaddleDetection's scripts")
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
        if name == "train":
            add_training_flags(command)
        if name == "plan":
            add_plan_flags(command)
        if name == "bench":
            add_bench_flags(command)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        arguments: the arguments in place of those of the process.

    Returns:
        The exit code.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    options.recipe = options.recipe or options.config
    if not options.recipe and str(getattr(options, "resume", "")).endswith((".yml", ".yaml")):  # --resume RECIPE
        options.recipe, options.resume = options.resume, "last"
    if not options.recipe:
        parser.error("a RECIPE is required")
    warnings.filterwarnings("ignore", message="Setuptools is replacing distutils")
    given = list(sys.argv[1:] if arguments is None else arguments)
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
        if missing not in ("ppdet", "pycocotools"):
            raise
        return _fail(f"recipes need {missing}: pip install 'paddle_sparse_cb[detection]'", 1)
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
    if options.command == "verify":
        from .recipe.verify_files import is_verifiable, verify_files

        if is_verifiable(options.recipe):
            verify_files(Path(options.recipe))
            return
    if options.command == "bench":
        _bench(options)
        return
    recipe = _read_recipe(options)
    options.loaded = recipe
    if options.command == "train":
        _train(recipe, options)
        return
    from .recipe import commands
    from .report.schema import read_report
    from .report.table import report_table

    if options.command == "report":
        print(report_table(read_report(recipe.output)))
    elif options.command == "plan":
        _plan(recipe, options)
    elif options.command == "eval":
        print(commands.evaluate(recipe, options.export))
    else:
        steps = {"export": commands.export, "optimize": commands.optimize, "verify": commands.verify}
        steps[options.command](recipe, options.export)


def _plan(recipe: Recipe, options: argparse.Namespace) -> None:
    ratios = split_list("--ratio", options.ratio, float)
    blocks = split_list("--block", options.block, parse_block)
    if not options.measure:
        if ratios or blocks:
            raise InputError("--ratio and --block need --measure")
        from .recipe import commands

        commands.print_plan(recipe)
        return
    from .recipe.plan_measure import BLOCKS, RATIOS, PlanRequest, measure_plan
    from .report.plan_latency import plan_latency_table

    with stdout_to_stderr():
        result = measure_plan(recipe, PlanRequest(ratios or RATIOS, blocks or BLOCKS, log=_log))
    print(plan_latency_table(result))


def _read_recipe(options: argparse.Namespace) -> Recipe:
    from .recipe.schema import read_recipe  # imports Paddle and ppdet, which `--help` does not need
    from .recipe.smoke import smoke

    amp = ["amp=true"] if options.command == "train" and options.amp else []
    recipe = read_recipe(options.recipe, options.slim_config, [*options.opt, *amp])
    return smoke(recipe) if options.smoke else recipe


def _bench(options: argparse.Namespace) -> None:
    """Prints the table, or only JSON; everything else that this process prints goes to standard error."""
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
        log=_log,
    )
    if Path(options.recipe).is_dir():
        return bench_folder(Path(options.recipe), request)
    from .recipe.bench import bench_recipe  # imports ppdet, which a folder does not need

    return bench_recipe(_read_recipe(options), request)


def _bench_on_device(options: argparse.Namespace) -> dict[str, Any]:
    for name in ("ratio", "block", "seconds", "eval", "layers", "export"):
        if getattr(options, name) not in (None, False):
            raise InputError(f"--{name}: --runner and --adb time the files that exist, a fixed number of times")
    threads = split_list("--threads", options.threads, int) or [1]
    clusters = split_list("--cluster", options.cluster, str) or ["any"]
    from .deploy.bench.devices import DeviceOptions
    from .recipe.bench_device import bench_folder_on_device, bench_recipe_on_device

    device = DeviceOptions(options.runner, options.adb, threads, clusters, _log)
    if Path(options.recipe).is_dir():
        return bench_folder_on_device(Path(options.recipe), device)
    return bench_recipe_on_device(_read_recipe(options), device)


def _log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _train(recipe: Recipe, options: argparse.Namespace) -> None:
    from .callbacks.stop_on_signal import Signals
    from .recipe.train import TrainOptions, train

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
            ),
        )


if __name__ == "__main__":
    sys.exit(main())
