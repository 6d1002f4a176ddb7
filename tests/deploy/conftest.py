"""The runners of `examples/lite_runner`, compiled for this machine."""

import importlib.util
import sys
from pathlib import Path

import pytest

from paddle_sparse_cb.deploy.lite.optimizer import find_optimizer

from .compiling import SOURCES, compile_runner

# The libraries are extension modules: they need a Python around them, so a runner is called in a Python process.
CALL_MAIN = """
import ctypes, sys
library, program, *arguments = sys.argv[1:]
ctypes.CDLL(library, ctypes.RTLD_GLOBAL)
arguments = [program, *arguments]
values = (ctypes.c_char_p * (len(arguments) + 1))(*map(str.encode, arguments), None)
sys.exit(ctypes.CDLL(program).main(len(arguments), values))
"""


@pytest.fixture(scope="session")
def lite_runner(tmp_path_factory):
    """The command that runs lite_runner with the library of the optimizer's wheel."""
    program = compile_runner(SOURCES / "lite_runner.cpp", tmp_path_factory.mktemp("lite_runner"))
    installed = importlib.util.find_spec("paddlelite")
    cached = find_optimizer().environment.get("PYTHONPATH")
    if not (installed or cached):
        pytest.skip("the optimizer is not that of the wheel")
    folder = Path(installed.origin).parent if installed else Path(cached, "paddlelite")
    return [sys.executable, "-c", CALL_MAIN, str(folder / "lite.so"), str(program)]


@pytest.fixture(scope="session")
def mnn_runner(tmp_path_factory):
    """The command that runs mnn_runner with the library of MNN's wheel."""
    installed = importlib.util.find_spec("_mnncengine")
    if installed is None:
        pytest.skip("MNN is not installed")
    folder = tmp_path_factory.mktemp("mnn_runner")
    program = compile_runner(SOURCES / "mnn_runner.cpp", folder, "-D_GLIBCXX_USE_CXX11_ABI=0")
    return [sys.executable, "-c", CALL_MAIN, installed.origin, str(program)]
