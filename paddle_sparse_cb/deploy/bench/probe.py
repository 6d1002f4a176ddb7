"""Tries models of unknown origin in a process of its own, because runtimes may crash on a damaged file."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ...errors import InputError, PipelineError
from .engines import ENGINES, load, make_inputs
from .run import Candidate

_TIMEOUT = 600  # seconds for all models
_CODE = "import sys; from paddle_sparse_cb.deploy.bench.probe import probe; probe(sys.argv[1:])"
_DONE = "probed: "  # begins a line of the process; the runtimes print others


def check_runnable(candidates: Sequence[Candidate]) -> None:
    """Loads each candidate in a new process, and runs it once.

    Raises:
        InputError: a runtime cannot load or run a file, crashes, or takes too long; the message names both.
    """
    arguments = [argument for one in candidates for argument in (one.engine.name, str(one.path.absolute()))]
    printed, status = _run(arguments)
    results = [json.loads(line[len(_DONE) :]) for line in printed.splitlines() if line.startswith(_DONE)]
    for error in filter(None, results):
        raise InputError(error)
    if len(results) < len(candidates):
        one = candidates[len(results)]
        raise InputError(f"{one.path}: {one.engine.name} crashes on it ({status}): damaged, or not for this runtime")


def _run(arguments: Sequence[str]) -> tuple[str, str]:
    """Runs `probe` in a new process of this interpreter; returns what it printed and how it ended."""
    package = str(Path(__file__).absolute().parents[3])
    try:
        done = subprocess.run(
            [sys.executable, "-c", f"import sys; sys.path.insert(0, {package!r}); {_CODE}", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_TIMEOUT,
        )
    except subprocess.TimeoutExpired as error:
        return (error.stdout or b"").decode(errors="replace"), f"no result after {_TIMEOUT} seconds"
    status = f"exit code {done.returncode}" if done.returncode >= 0 else f"signal {-done.returncode}"
    return done.stdout.decode(errors="replace"), status


def probe(arguments: Sequence[str]) -> None:
    """Loads and runs models, and prints a line for each.

    Args:
        arguments: the name of a runtime and the path of a file for each model.
    """
    engines = {engine.name: engine for engine in ENGINES}
    for name, file in zip(arguments[::2], arguments[1::2]):
        error = ""
        try:
            session = load(engines[name], Path(file), 1)
            session.run(make_inputs(session.inputs, Path(file)))
        except (InputError, PipelineError) as caught:
            error = str(caught)
        except Exception as caught:  # the runtimes raise what they like
            error = f"{file}: {name} cannot run it: {type(caught).__name__} {' '.join(str(caught).split())[:300]}"
        print(f"\n{_DONE}{json.dumps(error)}", flush=True)
