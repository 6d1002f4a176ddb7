from pathlib import Path

import numpy as np
import paddle
import pytest
from helpers import run_exported
from paddle import nn
from paddle.jit.dy2static.program_translator import ProgramTranslator
from paddle.static import InputSpec

from paddle_sparse_cb import InputError
from paddle_sparse_cb.deploy.export import export
from paddle_sparse_cb.utils.legacy_programs import legacy_program_format

SPEC = [InputSpec([1, 1, 8, 8], "float32", "x")]


def test_the_exported_model_computes_the_same(network, tmp_path):
    prefix = export(network, tmp_path / "inference" / "model", SPEC)
    image = paddle.rand([1, 1, 8, 8])
    network.eval()
    found, = run_exported(prefix, image.numpy())
    np.testing.assert_allclose(found, network(image).numpy(), rtol=1e-5, atol=1e-6)


def test_the_program_tells_nothing_of_the_machine_and_of_what_ran_before(network, tmp_path):
    first = export(network, tmp_path / "first", SPEC)
    nn.Conv2D(1, 1, 1)(nn.Linear(8, 8)(paddle.rand([1, 1, 8, 8])))  # has taken names that Paddle gives out
    second = export(network, tmp_path / "second", SPEC)
    for ending in (".pdmodel", ".pdiparams"):
        assert first.with_suffix(ending).read_bytes() == second.with_suffix(ending).read_bytes()
    assert Path(__file__).name.encode() not in first.with_suffix(".pdmodel").read_bytes()


def test_each_layer_keeps_its_own_mode(network, tmp_path):
    network.bn.eval()
    export(network, tmp_path / "inference" / "model", SPEC)
    assert network.training
    assert not network.bn.training


@pytest.mark.parametrize("shape", [[1, 1, -1, -1], [None, 1, 8, 8], [2, 1, 8, 8], [1, 1, 8, None]])
def test_a_shape_that_lite_computes_wrongly_is_refused(network, tmp_path, shape):
    with pytest.raises(InputError, match="needs every size fixed and batch 1"):
        export(network, tmp_path / "inference" / "model", [InputSpec(shape, "float32", "x")])
    assert not (tmp_path / "inference").exists()


def test_what_else_is_in_the_folder_stays(network, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    export(network, tmp_path / "model", SPEC)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
    assert {path.suffix for path in tmp_path.iterdir()} == {".txt", ".pdmodel", ".pdiparams", ".info"}


def test_an_export_that_fails_leaves_the_earlier_one(network, tmp_path):
    prefix = export(network, tmp_path / "inference" / "model", SPEC)
    before = prefix.with_suffix(".pdiparams").read_bytes()
    with pytest.raises(Exception, match="."):
        export(network, prefix, [InputSpec([1, 1, 8], "float32", "x")])  # an image has four dimensions
    assert prefix.with_suffix(".pdiparams").read_bytes() == before


def test_an_export_that_failed_leaves_nothing_to_a_later_one(network, tmp_path):
    """Paddle would give its parameters to a later program that happens to lie at the same address."""
    notes = ProgramTranslator.get_instance()._params_recorder.params_dict
    with pytest.raises(Exception, match="."), legacy_program_format():
        paddle.jit.save(nn.Conv2D(1, 2, 1), str(tmp_path / "failed"), [InputSpec([1, 1, 8], "float32", "x")])
    assert notes  # if this fails, Paddle has mended it
    export(network, tmp_path / "model", SPEC)
    assert not notes
