"""Compiles the programs of `examples/lite_runner` for this machine."""

import shutil
import subprocess
from pathlib import Path

import pytest

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
