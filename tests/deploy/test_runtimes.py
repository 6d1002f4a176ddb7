"""Exported models that run on this machine."""

import numpy as np
import pytest
from helpers import PADDLE3, Pointwise, run_exported
from paddle.static import InputSpec

from paddle_sparse_cb import InputError
from paddle_sparse_cb.deploy.export import export
from paddle_sparse_cb.deploy.runtimes import open_model
from paddle_sparse_cb.utils.weight_files import parse_program

pytestmark = pytest.mark.skipif(PADDLE3, reason="Paddle Inference 3 does not read Paddle 2's format")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return export(Pointwise(), tmp_path_factory.mktemp("model") / "model", [InputSpec([1, 1, 8, 8], "float32", "x")])


@pytest.fixture
def copied(exported, tmp_path):
    for file in exported.parent.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path / "model.pdmodel"


def test_an_exported_program_computes_the_same_as_in_paddles_executor(exported):
    model = open_model(exported.with_suffix(".pdmodel"), threads=2)
    assert model.inputs == {"x": (1, 1, 8, 8)}
    for seed in (0, 1):
        x = np.random.RandomState(seed).rand(1, 1, 8, 8).astype(np.float32)
        (output,) = model.run({"x": x}).values()
        assert output == pytest.approx(run_exported(exported, x)[0], abs=1e-6)


@pytest.mark.parametrize("operator", ["py_func", "save", "load", "print", "while", "listen_and_serv", ""])
def test_a_program_with_an_operator_that_may_run_code_or_write_files_is_refused(operator, copied):
    program = parse_program(copied.with_suffix(""))
    program.blocks[0].ops[3].type = operator
    copied.write_bytes(program.SerializeToString())
    with pytest.raises(InputError, match=rf"model.pdmodel: the operator {operator} is not run"):
        open_model(copied)


def test_damaged_and_missing_files_are_errors_of_one_line(copied):
    parameters = copied.with_suffix(".pdiparams")
    content = parameters.read_bytes()
    parameters.write_bytes(content[:-5])
    with pytest.raises(InputError, match="model.pdiparams: "):
        open_model(copied)
    parameters.unlink()
    with pytest.raises(InputError, match="model.pdiparams: no such file"):
        open_model(copied)
    parameters.write_bytes(content)
    copied.write_bytes(b"\xff" * 100)
    with pytest.raises(InputError, match="model.pdmodel: not a Paddle program"):
        open_model(copied)


def change_first_convolution(file, change):
    program = parse_program(file.with_suffix(""))
    change(next(op for op in program.blocks[0].ops if op.type == "conv2d"))
    file.write_bytes(program.SerializeToString())


def test_an_operator_that_reads_nothing_is_an_error_and_no_crash(copied):
    """Paddle's own optimizations end the process."""

    def read_nothing(conv):
        next(slot for slot in conv.inputs if slot.parameter == "Input").arguments[:] = ["nothing"]

    change_first_convolution(copied, read_nothing)
    with pytest.raises(InputError, match="model.pdmodel: damaged: conv2d names 'nothing', which is not declared"):
        open_model(copied)


def test_a_program_that_paddle_cannot_run_is_an_error_of_one_line(copied):
    change_first_convolution(copied, lambda conv: conv.ClearField("inputs"))
    with pytest.raises(InputError, match="model.pdmodel: Paddle cannot run this model: ") as error:
        open_model(copied).run({"x": np.zeros((1, 1, 8, 8), np.float32)})
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [("model.nb", "runs on ARM devices only"), ("model.tflite", "no runtime for a model file '.tflite'; ")],
)
def test_a_file_without_a_runtime_is_an_error(name, message, tmp_path):
    with pytest.raises(InputError, match=message):
        open_model(tmp_path / name)
