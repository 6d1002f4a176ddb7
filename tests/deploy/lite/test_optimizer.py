import os
import shutil
import signal
import subprocess
import sys

import pytest
from helpers import Pointwise, forked
from paddle.static import InputSpec

from paddle_sparse_cb import GMPPruner, InputError, make_plan
from paddle_sparse_cb.deploy.export import export
from paddle_sparse_cb.deploy.lite import optimizer as lite
from paddle_sparse_cb.deploy.lite.nb import ConvolutionCount, count_convolutions, read_nb
from paddle_sparse_cb.errors import PipelineError

SPEC = [InputSpec([1, 1, 8, 8], "float32", "x")]


@pytest.fixture(scope="module")
def optimizer():
    return lite.find_optimizer()


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A network at exactly Paddle-Lite's threshold, 60% zeros, exported."""
    network = Pointwise()
    GMPPruner(
        network,
        ratio=0.6,
        local_sparsity=True,
        plan=make_plan(network, SPEC),
        configs={"initial_ratio": 0.6, "pruning_steps": 1},
    ).step()
    return export(network, tmp_path_factory.mktemp("lite") / "inference" / "model", SPEC)


def test_every_planned_layer_runs_sparse_at_exactly_the_threshold(exported, optimizer, tmp_path):
    nb = lite.optimize(exported, tmp_path / "sparse.nb", sparse=True, optimizer=optimizer)
    assert count_convolutions(nb) == ConvolutionCount(total=7, sparse=2)


def test_nothing_runs_sparse_in_a_dense_file(exported, optimizer, tmp_path):
    nb = lite.optimize(exported, tmp_path / "dense.nb", sparse=False, optimizer=optimizer)
    assert count_convolutions(nb) == ConvolutionCount(total=7, sparse=0)


def test_the_flag_in_paddledetections_readme_is_ignored(exported, optimizer, tmp_path):
    """The README has `--sparse_model=True`; `optimize` passes `true`."""
    done = optimizer.run(
        f"--model_file={exported}.pdmodel",
        f"--param_file={exported}.pdiparams",
        f"--optimize_out={tmp_path / 'documented'}",
        "--valid_targets=arm",
        "--sparse_model=True",
    )
    assert done.returncode == 0
    assert count_convolutions(tmp_path / "documented.nb").sparse == 0


@pytest.mark.parametrize("targets", ["arm,x86", "x86", "arm,opencl"])
def test_nothing_runs_sparse_with_another_target(targets, exported, optimizer, tmp_path):
    done = optimizer.run(
        f"--model_file={exported}.pdmodel",
        f"--param_file={exported}.pdiparams",
        f"--optimize_out={tmp_path / 'other'}",
        f"--valid_targets={targets}",
        "--sparse_model=true",
    )
    assert done.returncode == 0
    assert count_convolutions(tmp_path / "other.nb").sparse == 0


def test_quant_model_leaves_sparse_weights_in_fp32(exported, optimizer, tmp_path):
    done = optimizer.run(
        f"--model_file={exported}.pdmodel",
        f"--param_file={exported}.pdiparams",
        f"--optimize_out={tmp_path / 'quantized'}",
        "--valid_targets=arm",
        "--sparse_model=true",
        "--quant_model=true",
        "--quant_type=QUANT_INT8",
    )
    assert done.returncode == 0
    model = read_nb(tmp_path / "quantized.nb")
    dtypes = {str(model.parameters[op.inputs["NonZeroWeights"]].dtype) for op in model.operators if op.sparse}
    assert dtypes == {"float32"}


def test_a_damaged_program_is_refused_by_name(optimizer, tmp_path):
    (tmp_path / "model.pdmodel").write_bytes(b"no program")
    (tmp_path / "model.pdiparams").write_bytes(b"")
    with pytest.raises(InputError, match=r"model.pdmodel: .* damaged"):
        lite.optimize(tmp_path / "model", tmp_path / "model.nb", sparse=False, optimizer=optimizer)
    assert not (tmp_path / "model.nb").exists()


def test_a_failure_of_the_optimizer_is_one_line_and_leaves_no_file(exported, optimizer, tmp_path):
    (tmp_path / "model.pdmodel").write_bytes(exported.with_suffix(".pdmodel").read_bytes())
    (tmp_path / "model.pdiparams").write_bytes(b"")
    with pytest.raises(PipelineError, match="Paddle-Lite's optimizer failed on .*model.pdmodel") as error:
        lite.optimize(tmp_path / "model", tmp_path / "model.nb", sparse=False, optimizer=optimizer)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "model.nb").exists()


def test_the_optimizer_named_in_the_environment_is_used(optimizer, monkeypatch, tmp_path):
    script = tmp_path / "opt"
    settings = " ".join(f"{key}={value}" for key, value in optimizer.environment.items())
    script.write_text(f'#!/bin/sh\nexec env {settings} {" ".join(optimizer.command)} "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PADDLE_LITE_OPT", str(script))
    assert lite.find_optimizer().command == (str(script),)


@pytest.mark.parametrize("path", ["/nowhere/opt", "/bin/false", "/bin/true"])
def test_a_program_in_the_environment_that_is_no_optimizer_is_refused(path, monkeypatch):
    monkeypatch.setenv("PADDLE_LITE_OPT", path)
    with pytest.raises(InputError, match=f"PADDLE_LITE_OPT={path} is not a working Paddle-Lite optimizer"):
        lite.find_optimizer()


def test_without_an_interpreter_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(lite, "find_interpreters", lambda version: iter(()))
    monkeypatch.setattr(lite, "WHEEL_OF", {})
    monkeypatch.setattr(lite, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("PADDLE_LITE_OPT", raising=False)
    with pytest.raises(PipelineError, match=r"needs a Python 3.8, 3.10 or 3.11 .* uv python install 3.10"):
        lite.find_optimizer()


@pytest.mark.parametrize("length", [0, 0.5])
def test_a_damaged_optimizer_in_the_cache_is_named_with_what_to_delete(length, monkeypatch, tmp_path):
    """A truncated library ends the interpreter with signal 7 when its missing part is read."""
    monkeypatch.delenv("PADDLE_LITE_OPT", raising=False)
    monkeypatch.setattr(lite, "find_spec", lambda name: None)
    monkeypatch.setattr(lite.shutil, "which", lambda name: None)
    if not any(any(lite.find_interpreters(version)) for version in lite.WHEELS):
        pytest.skip("no Python for the optimizer")
    wheel = next(wheel for version, wheel in lite.WHEELS.items() if any(lite.find_interpreters(version)))
    damaged = tmp_path / "paddlelite"
    shutil.copytree(lite.fetch_wheel(wheel), damaged)
    library = damaged / "paddlelite" / "lite.so"
    os.truncate(library, int(library.stat().st_size * length))
    monkeypatch.setattr(lite, "fetch_wheel", lambda wheel: damaged)
    with pytest.raises(PipelineError, match=f"does not run with .*; if damaged, delete {damaged} to down") as error:
        lite.find_optimizer()
    assert "\n" not in str(error.value)


def test_a_shim_without_an_interpreter_is_skipped(monkeypatch, tmp_path):
    """pyenv puts a `python3.10` on PATH that answers `command not found`."""
    shims, real = tmp_path / "shims", tmp_path / "versions" / "3.10.99" / "bin"
    for folder, text in (
        (shims, "#!/bin/sh\necho 'command not found' >&2\nexit 127\n"),
        (real, "#!/bin/sh\necho 3.10\n"),
    ):
        folder.mkdir(parents=True)
        (folder / "python3.10").write_text(text)
        (folder / "python3.10").chmod(0o755)
    monkeypatch.setenv("PATH", f"{shims}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "nowhere"))
    found = list(lite.find_interpreters("3.10"))
    assert str(real / "python3.10") in found
    assert str(shims / "python3.10") not in found


def test_an_interpreter_is_known_by_its_answer_and_not_by_its_name():
    version = "{}.{}".format(*sys.version_info[:2])
    assert lite.is_python_version(sys.executable, version)
    assert not lite.is_python_version(sys.executable, "2.7")
    assert not lite.is_python_version("/nowhere/python", version)


def test_the_optimizer_does_not_need_the_training_environment(optimizer):
    done = subprocess.run(
        [*optimizer.command, "--version"],
        env={**optimizer.environment, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0


def test_a_killed_optimization_leaves_nothing_after_the_next_one(exported, optimizer, tmp_path):
    killer = lite.Optimizer(("sh", "-c", "kill -KILL $PPID"))
    process = forked(lambda: lite.optimize(exported, tmp_path / "sparse.nb", sparse=True, optimizer=killer))
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert list(tmp_path.iterdir())
    lite.optimize(exported, tmp_path / "sparse.nb", sparse=True, optimizer=optimizer)
    assert [path.name for path in tmp_path.iterdir()] == ["sparse.nb"]
