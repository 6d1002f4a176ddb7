"""Compiles the programs of `examples` for this machine, and calls them with the libraries of wheels."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from paddle_sparse_cb.deploy.lite.optimizer import find_optimizer

HERE = Path(__file__).parent
SOURCES = HERE.parent.parent / "examples" / "lite_runner"


def compile_runner(source, folder, *options):
    """Compiles a program as a shared library against the stated part of the API."""
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    output = folder / f"{source.stem}.so"
    command = [compiler, "-std=c++11", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", *options]
    subprocess.run([*command, f"-I{HERE / 'api_headers'}", f"-I{SOURCES}", source, "-o", output], check=True)
    return output


# The libraries are extension modules: they need a Python around them, so a program is called in a Python process.
CALL_MAIN = """
import ctypes, sys
library, program, *arguments = sys.argv[1:]
ctypes.CDLL(library, ctypes.RTLD_GLOBAL)
arguments = [program, *arguments]
values = (ctypes.c_char_p * (len(arguments) + 1))(*map(str.encode, arguments), None)
sys.exit(ctypes.CDLL(program).main(len(arguments), values))
"""


def call_main(library, program):
    """Returns the command that calls `main` of a program that was compiled as a shared library."""
    return [sys.executable, "-c", CALL_MAIN, str(library), str(program)]


def lite_library():
    """Returns Paddle-Lite's library for x86, which is in the optimizer's wheel."""
    installed = importlib.util.find_spec("paddlelite")
    cached = find_optimizer().environment.get("PYTHONPATH")
    if not (installed or cached):
        pytest.skip("the optimizer is not that of the wheel")
    folder = Path(installed.origin).parent if installed else Path(cached, "paddlelite")
    return folder / "lite.so"
