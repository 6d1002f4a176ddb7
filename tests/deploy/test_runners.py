"""The runners in C++, with the real libraries on this machine's processor."""

import ctypes
import json
import subprocess

import numpy as np
import pytest
from helpers import Pointwise, run_exported
from paddle.static import InputSpec

from paddle_sparse_cb.deploy.export import export
from paddle_sparse_cb.deploy.lite.optimizer import find_optimizer, optimize

from .compiling import compile_runner

SHAPE = [1, 1, 8, 8]
INPUT = ["--input", "1x1x8x8"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return export(Pointwise(), tmp_path_factory.mktemp("runners") / "model", [InputSpec(SHAPE, "float32", "x")])


@pytest.fixture(scope="module")
def nb(exported):
    """A `.nb` file for this processor; those that the package makes are for ARM."""
    return optimize(
        exported,
        exported.with_suffix(".nb"),
        sparse=False,
        optimizer=find_optimizer(),
        options={"valid_targets": "x86"},
    )


@pytest.fixture(scope="module")
def mnn(exported):
    from paddle_sparse_cb.deploy.mnn.converter import convert
    from paddle_sparse_cb.deploy.onnx import export_onnx

    onnx = export_onnx(exported, exported.with_suffix(".onnx"))
    return convert(onnx, exported.with_suffix(".mnn"), sparse=False)


def run(command, *arguments):
    return subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True)


def results(done):
    """The runs and the result that a runner printed."""
    assert done.returncode == 0, done.stderr
    *runs, result = (json.loads(line) for line in done.stdout.splitlines() if line.startswith("{"))
    return runs, result


def check_result(done, exported, runtime):
    runs, result = results(done)
    times = [run["ms"] for run in runs]
    assert [run["run"] for run in runs] == [0, 1, 2, 3]
    assert min(times) > 0
    assert result["median_ms"] == pytest.approx(np.median(times), abs=1e-6)
    assert result["min_ms"] == min(times)
    assert (result["runtime"], result["threads"]) == (runtime, 2)
    assert len(result["cpus"]) >= 1
    pattern = (np.arange(64) * 37 % 256 / 127.5 - 1).astype("float32").reshape(SHAPE)
    (expected,) = run_exported(exported, pattern)
    (output,) = result["outputs"]
    assert output["shape"] == [1, 10]
    assert output["mean_magnitude"] == pytest.approx(np.abs(expected).mean(), rel=1e-5)
    return result


def test_lite_runner_times_a_model_and_computes_what_paddle_does(lite_runner, nb, exported):
    done = run(lite_runner, nb, *INPUT, "--warmup", 2, "--repeats", 4, "--threads", 2, "--cluster", "big")
    assert check_result(done, exported, "Paddle-Lite")["version"] == "v2.13-rc"


def test_mnn_runner_times_a_model_and_computes_what_paddle_does(mnn_runner, mnn, exported):
    import MNN

    done = run(mnn_runner, mnn, "--warmup", 2, "--repeats", 4, "--threads", 2, "--cluster", "little")
    assert check_result(done, exported, "MNN")["version"] == MNN.version()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "usage: "),
        (["model.nb", "model.nb"], "usage: "),
        (["--repeats"], "usage: "),
        (["--cluster", "medium", "model.nb"], "usage: "),
        (["--what", "1", "model.nb"], "usage: "),
        (["none.nb"], "cannot read none.nb"),
        (["model.nb", "--threads", "two"], "not a number up to 1024: 'two'"),
        (["model.nb", "--repeats", "-1"], "not a number up to 1048576: '-1'"),
        (["model.nb", "--input", "1x0x8"], "an input cannot have the shape '1x0x8'"),
        (["model.nb", "--input", "65536x65536"], "an input cannot have the shape '65536x65536'"),
        (["model.nb", "--input", "1x"], "not a number up to 65536: ''"),
        (["model.nb"], "has 1 inputs: give --input for each, in their order"),
        (["model.nb", *INPUT, *INPUT], "has 1 inputs"),
    ],
)
def test_wrong_arguments_are_one_line_and_exit_code_2(arguments, message, lite_runner, nb):
    done = run(lite_runner, *(nb if argument == "model.nb" else argument for argument in arguments))
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_file_that_mnn_cannot_load_is_one_line(mnn_runner, tmp_path):
    (tmp_path / "bad.mnn").write_bytes(b"no model" * 100)
    done = run(mnn_runner, tmp_path / "bad.mnn")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"MNN cannot load {tmp_path / 'bad.mnn'}"


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Functions of runner.h that can be called from here."""
    folder = tmp_path_factory.mktemp("parts")
    (folder / "parts.cpp").write_text(
        '#include "runner.h"\n'
        'extern "C" double temperature(const char* root) { return runner::temperature(root); }\n'
        'extern "C" const char* quote(const char* text) {\n'
        "  static std::string quoted;\n"
        "  return (quoted = runner::quote(text)).c_str();\n"
        "}\n"
    )
    library = ctypes.CDLL(str(compile_runner(folder / "parts.cpp", folder)))
    library.temperature.restype, library.quote.restype = ctypes.c_double, ctypes.c_char_p
    return library


@pytest.mark.parametrize(
    ("zones", "expected"),
    [
        ({}, None),
        ({"battery": "31000\n"}, 31.0),
        ({"battery": "52000\n", "cpu-0-0-usr": "45123\n", "cpu-1-0-usr": "47800\n"}, 47.8),
        ({"soc_thermal": "61\n", "ddr": "70000\n"}, 61.0),
        ({"cpu-0-0-usr": "-40000\n", "gpu": "39000\n"}, 39.0),
        ({"cpu0": "", "cpu1": "unknown\n", "cpu2": "0\n", "cpu3": "999999999\n"}, None),
    ],
)
def test_the_temperature_is_that_of_the_hottest_sensor_of_the_processor(zones, expected, parts, tmp_path):
    for index, (kind, degrees) in enumerate(zones.items()):
        zone = tmp_path / f"thermal_zone{index}"
        zone.mkdir()
        (zone / "type").write_text(f"{kind}\n")
        (zone / "temp").write_text(degrees)
    (tmp_path / "cooling_device0").mkdir()
    found = parts.temperature(str(tmp_path).encode())
    assert np.isnan(found) if expected is None else found == pytest.approx(expected)
    assert np.isnan(parts.temperature(b"/no/such/folder"))


def test_texts_are_quoted_as_json(parts):
    text = 'a "b" \\ \x01\n\t é'
    assert json.loads(parts.quote(text.encode()).decode()) == text
