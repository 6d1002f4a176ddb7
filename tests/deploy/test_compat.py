"""Each workaround: what fails without it, so that the test fails once it is no longer needed, and what it does."""

import subprocess
import sys

import paddle
import pytest
from helpers import CORE_ONLY
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


# Imports OpenVINO beside a stand-in for its telemetry package, which records what would be sent.
OPENVINO = """
import sys, types
sent = []
class Telemetry:
    def __init__(self, *arguments, **keywords):
        pass
    def send_event(self, *event, **keywords):
        sent.append(event)
telemetry = types.ModuleType("openvino_telemetry")
telemetry.Telemetry = Telemetry
telemetry.backend = types.ModuleType("openvino_telemetry.backend")
telemetry.backend.backend_ga4 = types.ModuleType("openvino_telemetry.backend.backend_ga4")
sys.modules["openvino_telemetry"] = telemetry
sys.modules["openvino_telemetry.backend"] = telemetry.backend
sys.modules["openvino_telemetry.backend.backend_ga4"] = telemetry.backend.backend_ga4
if sys.argv[1] == "ours":
    from paddle_sparse_cb.deploy.compat import import_openvino
    openvino = import_openvino()
else:
    import openvino
assert sys.modules["openvino_telemetry"] is telemetry
print(openvino.__name__, len(sent))
"""


@pytest.mark.skipif(CORE_ONLY, reason="OpenVINO is installed beside Paddle 2.6 only")
def test_openvino_sends_an_event_when_it_is_imported():
    """Once this fails, `import_openvino` is no longer needed."""
    done = subprocess.run([sys.executable, "-c", OPENVINO, "plain"], capture_output=True, text=True)
    assert done.stdout.split() == ["openvino", "1"], done.stderr


@pytest.mark.skipif(CORE_ONLY, reason="OpenVINO is installed beside Paddle 2.6 only")
def test_import_openvino_sends_none():
    done = subprocess.run([sys.executable, "-c", OPENVINO, "ours"], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1].split() == ["openvino", "0"], done.stderr
