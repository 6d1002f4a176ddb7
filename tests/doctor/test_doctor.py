"""What `paddle-sparse doctor` finds in this environment, in one without Paddle, and in ones that do not work."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.version import Version

from paddle_sparse_cb.cli import main
from paddle_sparse_cb.doctor.versions import check_versions

ROOT = Path(__file__).parents[2]
WORKING = {
    "paddlepaddle": "2.6.2",
    "paddleslim": "2.6.0",
    "numpy": "1.23.5",
    "requests": "2.32.5",
    "decorator": "5.3.1",
    "six": "1.17.0",
    "paddledet": "2.5.0",
    "pycocotools": "2.0.8",
    "opencv-python": "4.6.0.66",
    "numba": "0.58.1",
    "supervision": "0.26.1",
    "MNN": "3.6.1",
    "paddle2onnx": "1.2.11",
    "onnx": "1.16.2",
    "onnxruntime": "1.19.2",
    "openvino": "2026.4.1",
    "tensorboard": "2.21.0",
    "setuptools": "65.5.0",
}


def check(**changes):
    installed = {**WORKING, **{name.replace("_", "-"): version for name, version in changes.items()}}
    versions = {name: version and Version(version) for name, version in installed.items()}
    return [finding for finding in check_versions(versions) if finding.status != "ok"]


def test_the_versions_of_the_constraints_work_together():
    assert check() == []


@pytest.mark.parametrize(
    ("changes", "subject", "status", "advice"),
    [
        ({"paddlepaddle": None}, "paddlepaddle", "problem", "pip install -c constraints.txt 'paddle_sparse_cb[cpu]'"),
        ({"paddlepaddle": "2.5.1"}, "paddlepaddle", "problem", "install paddlepaddle 2.6.2"),
        ({"paddlepaddle": "3.3.1"}, "paddlepaddle", "note", "recipes and INT8 need paddlepaddle 2.6.2"),
        ({"paddlepaddle_gpu": "2.6.2"}, "paddlepaddle-gpu", "problem", "uninstall both, and install one"),
        ({"paddleslim": "2.4.1"}, "paddleslim", "problem", "install paddleslim 2.6.0"),
        ({"requests": None}, "requests", "problem", "pip install -c constraints.txt 'paddle_sparse_cb'"),
        ({"pycocotools": "2.0.11"}, "pycocotools", "problem", "SIGSEGV"),
        ({"numpy": "1.24.0"}, "numpy", "problem", "install numpy below 1.24"),
        ({"numpy": "2.1.0"}, "numpy", "problem", "install numpy below 1.24"),
        ({"setuptools": "81.0"}, "setuptools", "problem", "install setuptools below 81"),
        ({"paddle2onnx": "2.0.1"}, "paddle2onnx", "problem", "install paddle2onnx 1.2.11"),
        ({"paddledet": None}, "paddledet", "note", "recipes need it: pip install"),
        ({"MNN": None}, "MNN", "note", "'paddle_sparse_cb[mnn]'"),
    ],
)
def test_what_does_not_work_is_named_with_what_to_do(changes, subject, status, advice):
    findings = check(**changes)
    assert {(finding.subject, finding.status) for finding in findings} == {(subject, status)}
    assert any(advice in finding.advice for finding in findings)


def test_pycocotools_is_no_problem_with_paddle_3_nor_numpy_without_paddledet():
    subjects = {finding.subject for finding in check(paddlepaddle="3.3.1", pycocotools="2.0.11")}
    assert subjects == {"paddlepaddle"}
    subjects = {finding.subject for finding in check(paddledet=None, numpy="1.26.4")}
    assert subjects == {"paddledet"}


@pytest.mark.slow
def test_this_environment_has_no_problem(capsys):
    assert main(["doctor", "--json"]) == 0
    findings = {finding["subject"]: finding for finding in json.loads(capsys.readouterr().out)}
    assert findings["paddlepaddle"]["status"] in ("ok", "note")
    assert "paddle" in findings["imports"]["found"]
    assert "problem" not in {finding["status"] for finding in findings.values()}


def run_without_site_packages(folder, **environment):
    """Runs the doctor with nothing but this package and the few packages that its table needs."""
    for name in ("packaging", "platformdirs", "rich", "pygments", "markdown_it", "mdurl", "typing_extensions"):
        origin = Path(find_spec(name).origin)
        module = origin.parent if origin.stem == "__init__" else origin
        (folder / module.name).symlink_to(module)
    path = os.pathsep.join([str(ROOT), str(folder)])
    return subprocess.run(
        [sys.executable, "-S", "-m", "paddle_sparse_cb", "doctor"],
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
    )


def test_without_paddle_the_doctor_says_what_to_install(tmp_path):
    done = run_without_site_packages(tmp_path)
    assert done.returncode == 1
    assert "problem: paddlepaddle: pip install -c constraints.txt 'paddle_sparse_cb[cpu]'" in done.stdout
    assert (
        "note: paddledet: recipes need it: pip install -c constraints.txt 'paddle_sparse_cb[detection]'" in done.stdout
    )
    assert done.stderr == ("paddle-sparse: 6 problems: paddlepaddle, paddleslim, numpy, requests, decorator, six\n")


def test_a_cache_folder_that_cannot_be_written_is_a_problem(tmp_path):
    (tmp_path / "site").mkdir()
    done = run_without_site_packages(tmp_path / "site", PADDLE_SPARSE_CACHE="/proc/cache")
    assert "problem: download cache: set PADDLE_SPARSE_CACHE to a folder to write to" in done.stdout


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (
            "raise ImportError('libGL.so.1: cannot open shared object file')",
            "OpenCV needs a system library: apt-get install libgl1",
        ),
        ("import os; os.kill(os.getpid(), 11)", "see the other lines; an environment from constraints.txt"),
    ],
)
def test_a_package_that_cannot_be_imported_or_ends_the_process_is_named(code, advice, tmp_path, monkeypatch, capsys):
    (tmp_path / "paddle.py").write_text(code)  # the first that is imported
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    assert main(["doctor"]) == 1
    printed = capsys.readouterr()
    assert printed.err == "paddle-sparse: 1 problem: imports\n"
    assert f"problem: imports: {advice}" in printed.out
    assert "paddle: " in printed.out


def test_an_optimizer_that_does_not_run_is_a_problem_and_one_that_is_not_downloaded_a_note(tmp_path, monkeypatch):
    from paddle_sparse_cb.deploy.lite import optimizer
    from paddle_sparse_cb.errors import PipelineError

    monkeypatch.setenv("PADDLE_SPARSE_CACHE", str(tmp_path))
    monkeypatch.delenv("PADDLE_LITE_OPT", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(optimizer, "find_spec", lambda name: None)
    monkeypatch.setattr(optimizer, "find_interpreters", lambda version: iter(["python3.10"]))
    with pytest.raises(PipelineError, match="47 MB are downloaded when it is needed, and python3.10 runs it"):
        optimizer.find_optimizer(download=False)
    assert list(tmp_path.iterdir()) == []
