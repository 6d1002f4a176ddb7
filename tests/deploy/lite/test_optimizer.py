import os
import subprocess
import sys

import pytest
from helpers import Pointwise
from paddle.static import InputSpec

from paddle_sparse_cb import GMPPruner, InputError, make_plan
from paddle_sparse_cb.deploy.export import export
from paddle_sparse_cb.deploy.lite import optimizer as lite
from paddle_sparse_cb.deploy.lite.prediction import check_runs_sparse
from paddle_sparse_cb.errors import PipelineError
from paddle_sparse_cb.pruning.min_sparsity import min_sparsity

SPEC = [InputSpec([1, 1, 8, 8], "float32", "x")]


@pytest.fixture(scope="module")
def optimizer():
    return lite.find_optimizer()


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A network at exactly Paddle-Lite's threshold, 60%, exported."""
    network = Pointwise()
    GMPPruner(network, ratio=0.6, local_sparsity=True, plan=make_plan(network, SPEC),
              configs={"initial_ratio": 0.6, "pruning_steps": 1}).step()
    return export(network, tmp_path_factory.mktemp("lite") / "inference" / "model", SPEC)


def test_every_planned_layer_runs_sparse_at_the_threshold_itself(exported, optimizer, tmp_path):
    nb = lite.optimize(exported, tmp_path / "sparse.nb", sparse=True, optimizer=optimizer)
    assert lite.count_convolutions(nb) == lite.Convolutions(total=7, sparse=2)


def test_without_the_flag_nothing_runs_sparse(exported, optimizer, tmp_path):
    nb = lite.optimize(exported, tmp_path / "dense.nb", sparse=False, optimizer=optimizer)
    assert lite.count_convolutions(nb) == lite.Convolutions(total=7, sparse=0)


def test_the_documented_flag_does_nothing(exported, optimizer, tmp_path):
    """PaddleDetection's README has `--sparse_model=True`; this shows why `optimize` writes `true`."""
    done = optimizer.run(f"--model_file={exported}.pdmodel", f"--param_file={exported}.pdiparams",
                         f"--optimize_out={tmp_path / 'documented'}", "--valid_targets=arm", "--sparse_model=True")
    assert done.returncode == 0
    assert lite.count_convolutions(tmp_path / "documented.nb").sparse == 0


@pytest.mark.parametrize(("plan", "ratio", "scope", "said"), [
    ({}, 0.59, "local", "expand.weight dense: it may end with as few as 59.08% zeros, and runs sparse from 60% "
                        r"\(and 1 more of 2 planned layers\)"),
    ({}, 0.75, "global", "expand.weight dense: it may end with as few as 0.00% zeros"),
    ({"prune_params_type": None}, 0.75, "local", r"stem.0.weight dense: 3x3 kernel \(and 2 more of 7 planned layers\)"),
    ({"skip_params_func": lambda network: set()}, 0.75, "local", "stem.0.weight dense: 3x3 kernel"),
])
def test_a_planned_layer_that_would_stay_dense_is_named_before_the_training(network, plan, ratio, scope, said):
    made = make_plan(network, SPEC, **plan)
    with pytest.raises(InputError, match=f"Paddle-Lite would keep {said}"):
        lite.OptimizeLite().before_training(made, min_sparsity(made, ratio, scope))


def test_nothing_is_said_of_a_plan_that_runs_sparse(network):
    made = make_plan(network, SPEC)
    check_runs_sparse(made, min_sparsity(made, 0.6))


def test_a_model_that_cannot_be_read_is_one_line(optimizer, tmp_path):
    (tmp_path / "model.pdmodel").write_bytes(b"no program")
    (tmp_path / "model.pdiparams").write_bytes(b"")
    with pytest.raises(PipelineError, match="Paddle-Lite's optimizer failed on .*model.pdmodel") as error:
        lite.optimize(tmp_path / "model", tmp_path / "model.nb", sparse=False, optimizer=optimizer)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "model.nb").exists()


def test_an_explicit_optimizer_is_taken(optimizer, monkeypatch, tmp_path):
    script = tmp_path / "opt"
    settings = " ".join(f"{key}={value}" for key, value in optimizer.environment.items())
    script.write_text(f'#!/bin/sh\nexec env {settings} {" ".join(optimizer.command)} "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PADDLE_LITE_OPT", str(script))
    assert lite.find_optimizer().command == (str(script),)


@pytest.mark.parametrize("path", ["/nowhere/opt", "/bin/false", "/bin/true"])
def test_an_explicit_optimizer_that_does_not_run_is_named(path, monkeypatch):
    monkeypatch.setenv("PADDLE_LITE_OPT", path)
    with pytest.raises(InputError, match=f"PADDLE_LITE_OPT={path}"):
        lite.find_optimizer()


def test_without_any_interpreter_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(lite, "_interpreters", lambda version: iter(()))
    monkeypatch.setattr(lite, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("PADDLE_LITE_OPT", raising=False)
    with pytest.raises(PipelineError, match=r"needs a Python 3.10 or 3.8 .* uv python install 3.10"):
        lite.find_optimizer()


def test_a_shim_with_nothing_behind_it_is_passed_over(monkeypatch, tmp_path):
    """pyenv puts a `python3.10` on PATH that answers `command not found`."""
    shims, real = tmp_path / "shims", tmp_path / "versions" / "3.10.99" / "bin"
    for folder, text in ((shims, "#!/bin/sh\necho 'command not found' >&2\nexit 127\n"),
                         (real, "#!/bin/sh\necho 3.10\n")):
        folder.mkdir(parents=True)
        (folder / "python3.10").write_text(text)
        (folder / "python3.10").chmod(0o755)
    monkeypatch.setenv("PATH", f"{shims}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "nowhere"))
    found = list(lite._interpreters("3.10"))
    assert str(real / "python3.10") in found
    assert str(shims / "python3.10") not in found


def test_this_very_python_is_recognised():
    version = "{}.{}".format(*sys.version_info[:2])
    assert lite._is_python(sys.executable, version)
    assert not lite._is_python(sys.executable, "2.7")
    assert not lite._is_python("/nowhere/python", version)


def test_the_optimizer_does_not_need_the_training_environment(optimizer):
    done = subprocess.run([*optimizer.command, "--version"], env={**optimizer.environment, "PATH": "/usr/bin:/bin"},
                          capture_output=True, text=True)
    assert done.returncode == 0
