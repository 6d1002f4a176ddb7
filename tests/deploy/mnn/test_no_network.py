"""MNN and paddle2onnx start no process, open no connection, and do not load MNN's logger, which would do both."""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux" or platform.machine() != "x86_64", reason="needs seccomp")

MAIN = """
import sys
from pathlib import Path
import numpy as np
from paddle_sparse_cb.deploy.mnn.converter import convert
from paddle_sparse_cb.deploy.mnn.runtime import MNNModel
from paddle_sparse_cb.deploy.onnx import export_onnx
folder = Path(sys.argv[1])
onnx = export_onnx(folder / "inference" / "model", folder / "model.onnx")
files = [convert(onnx, folder / f"{sparse}.mnn", sparse=sparse) for sparse in (False, True)]
for model in map(MNNModel, files):
    model.run({name: np.zeros(shape, "float32") for name, shape in model.inputs.items()})
print("done")
"""


def run_confined(folder, code, *arguments):
    """Runs Python code in which all processes are confined; returns the finished process and the log."""
    home, log = folder / "home", folder / "log"
    home.mkdir()
    shutil.copy(Path(__file__).with_name("confined.py"), home / "sitecustomize.py")
    (folder / "main.py").write_text(code)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(home), *sys.path]), "CONFINED_LOG": str(log)}
    command = [sys.executable, "-W", "ignore", folder / "main.py", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    return done, log.read_text().splitlines() if log.exists() else []


def test_converting_and_running_start_and_connect_to_nothing(converted, tmp_path):
    done, log = run_confined(tmp_path, MAIN, tmp_path)
    assert done.stdout == "done\n", done.stderr
    assert list(dict.fromkeys(log)) == ["paddle2onnx.paddle2onnx_cpp2py_export", "_tools", "_mnncengine"]


@pytest.mark.parametrize(
    "act",
    [
        "socket.create_connection(('127.0.0.1', 9))",
        "ctypes.CDLL(None).connect(0, None, 0)",
        "os.system('true')",
        "ctypes.CDLL(None).system(b'true')",
        "subprocess.run([sys.executable, '--version'])",
    ],
)
def test_a_process_that_does_either_is_ended(tmp_path, act):
    script = (
        f"import ctypes, os, socket, subprocess, sys, sitecustomize\nsitecustomize.confine()\n{act}\nprint('alive')"
    )
    done, _ = run_confined(tmp_path, script)
    assert (done.returncode, done.stdout) == (-31, "")  # SIGSYS
