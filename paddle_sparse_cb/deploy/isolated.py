"""Runs tools that may end their process, or print to it, in a Python process of their own."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from ..errors import PipelineError

# Lines that say why a converter failed, the most telling ones first; others follow them.
_REASONS = ("not supported", "(?i)unsupported|error|failed", "")
_TIMEOUT = 1800  # seconds; a large network takes some ten


def require_modules(extra: str, *modules: str) -> None:
    """Checks that modules of an extra are installed, without importing them.

    Args:
        extra: the extra of this package that installs them.
        modules: names of top-level modules.

    Raises:
        PipelineError: a module is missing.
    """
    for module in modules:
        if find_spec(module) is None:
            raise PipelineError(f"{module} is not installed: pip install 'paddle_sparse_cb[{extra}]'")


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Discards what native code of this process prints within the block, by all threads."""
    sys.stdout.flush()
    sys.stderr.flush()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    saved = []
    try:
        for number in (1, 2):
            saved.append((number, os.dup(number)))
            os.dup2(nowhere, number)
        yield
    finally:
        for number, copy in saved:
            os.dup2(copy, number)
            os.close(copy)
        os.close(nowhere)


def run_isolated(what: str, code: str, arguments: Sequence[str | Path], expected: Path) -> None:
    """Runs Python code in a new process of this interpreter, which finds the same modules as this one.

    The process runs in an empty folder, since tools leave files in the current one, and its output is discarded.

    Args:
        what: the beginning of the error message, such as `paddle2onnx failed on model.pdmodel`.
        code: the code; `sys` is imported, and `sys.argv[1:]` are the arguments.
        arguments: its arguments; paths are made absolute.
        expected: the file that it must have written.

    Raises:
        PipelineError: the process failed, did not end in time, or wrote no file. The message ends with the last line
            of its output.
    """
    paths = [str(Path(path).absolute()) for path in sys.path]
    prologue = f"import json, sys\nsys.path[:] = json.loads({json.dumps(paths)!r})\n"
    absolute = [str(one.absolute()) if isinstance(one, Path) else one for one in arguments]
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(
                [sys.executable, "-c", prologue + code, *absolute],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=_TIMEOUT,
            )
        except subprocess.TimeoutExpired:
            raise PipelineError(f"{what}: no result after {_TIMEOUT} seconds") from None
    if done.returncode or not expected.is_file() or not expected.stat().st_size:
        raise PipelineError(f"{what}: {_describe(done)}")


def _describe(done: subprocess.CompletedProcess[str]) -> str:
    """Returns how a process ended, and the last line of its output that says why."""
    status = f"exit code {done.returncode}" if done.returncode >= 0 else f"signal {-done.returncode}"
    output, *_ = re.split(r"^-{20}", done.stdout, maxsplit=1, flags=re.MULTILINE)  # where Paddle prints its call stack
    output = re.sub(r"\x1b\[[\d;]*m", "", output)  # colors
    lines = [line.strip(" ,") for line in output.splitlines() if line.strip(" ,")]
    for pattern in _REASONS:
        reasons = [line for line in lines if re.search(pattern, line)]
        if reasons:
            return f"{status}: {reasons[-1]}"
    return f"{status}: no output"
