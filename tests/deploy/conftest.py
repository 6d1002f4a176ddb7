"""The runners of `examples/lite_runner`, compiled for this machine."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from paddle_sparse_cb.deploy.lite.optimizer import WHEELS
from paddle_sparse_cb.utils.packages import fetch_wheel

HERE = Path(__file__).parent
SOURCES = HERE.parent.parent / "examples" / "lite_runner"
# The libraries are extension modules: they need a Python around them, so a runner is called in a Python process.
CALL_MAIN = """
import ctypes, sys
library, program, *arguments = sys.argv[1:]
ctypes.CDLL(library, ctypes.RTLD_GLOBAL)
arguments = [program, *arguments]
values = (ctypes.c_char_p * (len(arguments) + 1))(*map(str.encode, arguments), None)
sys.exit(ctypes.CDLL(program).main(len(arguments), values))
"""


def compile_runner(name, folder, *options):
    """Compiles a runner as a shared library against the stated part of the API."""
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    output = folder / f"{name}.so"
    command = [compiler, "-std=c++11", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", *options]
    subprocess.run([*command, f"-I{HERE / 'api_headers'}", SOURCES / f"{name}.cpp", "-o", output], check=True)
    return output


@pytest.fixture(scope="session")
def lite_runner(tmp_path_factory):
    """The command that runs lite_runner with the library of the optimizer's wheel."""
    program = compile_runner("lite_runner", tmp_path_factory.mktemp("lite_runner"))
    installed = importlib.util.find_spec("paddlelite")
    folder = Path(installed.origin).parent if installed else fetch_wheel(WHEELS["3.10"]) / "paddlelite"
    return [sys.executable, "-c", CALL_MAIN, str(folder / "lite.so"), str(program)]


@pytest.fixture(scope="session")
def mnn_runner(tmp_path_factory):
    """The command that runs mnn_runner with the library of MNN's wheel."""
    installed = importlib.util.find_spec("_mnncengine")
    if installed is None:
        pytest.skip("MNN is not installed")
    program = compile_runner("mnn_runner", tmp_path_factory.mktemp("mnn_runner"), "-D_GLIBCXX_USE_CXX11_ABI=0")
    return [sys.executable, "-c", CALL_MAIN, installed.origin, str(program)]
