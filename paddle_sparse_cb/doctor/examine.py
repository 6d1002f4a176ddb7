"""Looks at the environment: versions, imports, download cache, Paddle-Lite's optimizer."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict

from ..errors import InputError, PipelineError
from ..utils.downloads import cache_dir
from .versions import NOTE, PROBLEM, Finding, Versions, check_versions, installed_versions

_IMPORT_SECONDS = 120
# Imports the packages in the order in which a recipe does, and names each first, so that the last name is the culprit
# if the process is ended by a signal.
_IMPORTS = """
import sys, zlib
for name in sys.argv[1:]:
    print(name, flush=True)
    __import__(name)
zlib.decompress(zlib.compress(bytes(100000)))
"""


def examine() -> list[Finding]:
    """Looks at everything, and returns what was found."""
    versions = installed_versions()
    return [
        _python(),
        *_hardware(),
        *check_versions(versions),
        *_imports(versions),
        *_cache(),
        _lite_optimizer(versions),
    ]


def _python() -> Finding:
    version = platform.python_version()
    if (3, 9) <= sys.version_info[:2] <= (3, 11):
        return Finding("Python", version)
    return Finding("Python", version, PROBLEM, "Python 3.9 to 3.11 is needed: numpy below 1.24 has no later wheels")


def _hardware() -> Iterator[Finding]:
    cores, machine = os.cpu_count() or 1, platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            flags = next((line.split() for line in file if line.startswith("flags")), [])
    except OSError:  # not Linux
        flags = []
    if machine == "x86_64" and flags and "avx" not in flags:
        yield Finding("CPU", f"{machine} without AVX", PROBLEM, "Paddle's wheels need a CPU with AVX")
    else:
        yield Finding("CPU", f"{machine}, {cores} cores")


def _imports(versions: Versions) -> Iterator[Finding]:
    """Imports the packages in a process of its own, which a clash of libraries may end."""
    modules = {
        "paddlepaddle": "paddle",
        "paddleslim": "paddleslim",
        "opencv-python": "cv2",
        "pycocotools": "pycocotools.mask",
        "numba": "numba",
        "paddledet": "ppdet.modeling",
    }
    names = [module for package, module in modules.items() if versions.get(package)]
    if not names:
        return
    try:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", _IMPORTS, *names],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_IMPORT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        yield Finding("imports", f"not complete after {_IMPORT_SECONDS} s", PROBLEM, "the machine is overloaded")
        return
    if done.returncode == 0:
        yield Finding("imports", ", ".join(names))
        return
    reached = [line for line in done.stdout.splitlines() if line in names]
    culprit = reached[-1] if reached else "Python"
    if done.returncode < 0:
        reason = f"ended by signal {-done.returncode}"
    else:
        reason = ([line for line in done.stderr.splitlines() if line.strip()] or ["no output"])[-1]
    yield Finding("imports", f"{culprit}: {reason}", PROBLEM, _advise(reason))


def _advise(reason: str) -> str:
    if "libGL" in reason or "libgthread" in reason:
        return "OpenCV needs a system library: apt-get install libgl1 libglib2.0-0"
    return "see the other lines; an environment from constraints.txt is known to work"


def _cache() -> Iterator[Finding]:
    try:
        folder = cache_dir()
    except InputError as error:
        yield Finding("download cache", "none", PROBLEM, str(error))
        return
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            yield Finding("download cache", str(folder))
    except OSError as error:
        yield Finding(
            "download cache", f"{folder}: {error.strerror}", PROBLEM, "set PADDLE_SPARSE_CACHE to a folder to write to"
        )


def _lite_optimizer(versions: Versions) -> Finding:
    subject = "Paddle-Lite optimizer"
    if versions.get("paddlepaddle") is None:
        return Finding(subject, "not looked for", NOTE, "install paddlepaddle first")
    try:
        from ..deploy.lite.optimizer import find_optimizer

        return Finding(subject, " ".join(find_optimizer(download=False).command))
    except InputError as error:  # PADDLE_LITE_OPT is wrong
        return Finding(subject, "does not run", PROBLEM, str(error))
    except (PipelineError, OSError) as error:  # everything else works without it
        return Finding(subject, "none", NOTE, str(error))
    except ImportError as error:
        return Finding(subject, "not looked for", NOTE, f"Paddle cannot be imported: {error}")


def print_findings(findings: list[Finding], as_json: bool = False) -> None:
    """Prints what was found, as a table or as JSON.

    Raises:
        PipelineError: there is a problem.
    """
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        from ..utils.tables import render_table

        print(render_table(("", "", "found"), [(one.status, one.subject, one.found) for one in findings], "lll"))
        advice = [f"{one.status}: {one.subject}: {one.advice}" for one in findings if one.advice]
        print("\n".join(["", *advice] if advice else []))
    problems = [finding.subject for finding in findings if finding.status == PROBLEM]
    if problems:
        raise PipelineError(f"{len(problems)} problem{'s'[: len(problems) > 1]}: {', '.join(problems)}")
