"""Models on which a runtime crashes."""

import json

import pytest

from paddle_sparse_cb import InputError
from paddle_sparse_cb.deploy.bench.engines import MNN, PADDLE
from paddle_sparse_cb.deploy.bench.probe import check_runnable, probe
from paddle_sparse_cb.deploy.bench.run import Candidate

from .conftest import RUNTIMES, edited_program

pytestmark = RUNTIMES


@pytest.fixture
def crashing(models, tmp_path):
    """A program with a variable of another name than its operators use: Paddle Inference dereferences null."""

    def rename(program):
        [variable] = [one for one in program.blocks[0].vars if one.name == "linear_0.b_0"]
        variable.name = "linear_0.c_0"

    return Candidate(PADDLE, edited_program(models, tmp_path, rename), "dense", None)


@pytest.mark.slow
def test_a_crash_of_a_runtime_is_an_error_of_one_line_that_names_the_file(models, crashing):
    right = [Candidate(MNN, models / "sparse.mnn", "sparse", None), Candidate(MNN, models / "dense.mnn", "dense", None)]
    check_runnable(right)
    with pytest.raises(InputError, match=r"edited\.pdmodel: Paddle Inference crashes on it \(signal 11\)") as error:
        check_runnable([*right, crashing])
    assert "\n" not in str(error.value)


def test_each_model_has_a_line_with_its_error(models, tmp_path, capsys):
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(b"x")
    probe(["MNN", str(models / "dense.mnn"), "ONNX Runtime", str(damaged)])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("probed: ")]
    right, wrong = (json.loads(line.partition(" ")[2]) for line in lines)
    assert right == ""
    assert wrong.startswith(f"{damaged}: ONNX Runtime cannot load it: ")
