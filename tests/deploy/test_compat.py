"""Each workaround: what fails without it, so that the test fails once Paddle no longer needs it, and what it does."""

import paddle
import pytest
from paddle import nn
from paddle.jit.dy2static.program_translator import ProgramTranslator
from paddle.static import InputSpec

from paddle_sparse_cb.deploy.compat import discard_failed_exports
from paddle_sparse_cb.deploy.export import export
from paddle_sparse_cb.utils.legacy_programs import legacy_program_format


@pytest.fixture
def recorded(tmp_path):
    """What Paddle has recorded of programs, after an export that failed: a 3-D input for a 2-D convolution."""
    with pytest.raises(Exception, match="."), legacy_program_format():
        paddle.jit.save(nn.Conv2D(1, 2, 1), str(tmp_path / "failed"), [InputSpec([1, 1, 8], "float32", "x")])
    return ProgramTranslator.get_instance()._params_recorder.params_dict


def test_paddle_keeps_the_parameters_of_a_failed_export(recorded):
    """Once this fails, `discard_failed_exports` is no longer needed."""
    assert recorded


def test_discard_failed_exports_clears_them(recorded):
    discard_failed_exports()
    assert not recorded


def test_an_export_discards_what_a_failed_one_left(recorded, network, tmp_path):
    export(network, tmp_path / "model", [InputSpec([1, 1, 8, 8], "float32", "x")])
    assert not recorded
