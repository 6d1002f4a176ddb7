"""The runtimes: their outputs, what they refuse, and that they stay silent."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from paddle_sparse_cb import InputError
from paddle_sparse_cb.deploy.bench import engines
from paddle_sparse_cb.deploy.bench.engines import ENGINES, PADDLE, Engine, load, make_inputs, missing_engines
from paddle_sparse_cb.deploy.bench.run import relative_difference

from .conftest import RUNTIMES, SIZE, edited_program

FILES = {".pdmodel": ["model.pdmodel"], ".onnx": ["model.onnx"], ".mnn": ["dense.mnn", "sparse.mnn"]}
CASES = [(engine, file) for engine in ENGINES for file in FILES[engine.suffix]]


@RUNTIMES
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("engine", "file"), CASES, ids=[f"{engine.name}-{file}" for engine, file in CASES])
def test_every_runtime_computes_what_paddle_computes(models, engine, file, threads):
    session = load(engine, models / file, threads)
    assert session.inputs == {"image": (1, 1, SIZE, SIZE)}
    for seed in range(2):
        inputs = make_inputs(session.inputs, models / file, seed)
        expected = load(PADDLE, models / "model.pdmodel", 1).run(inputs)
        assert relative_difference(session.run(inputs), expected) < 1e-5


@RUNTIMES
def test_outputs_do_not_change_with_the_next_run(models):
    for engine, file in CASES:
        session = load(engine, models / file, 1)
        first = session.run(make_inputs(session.inputs, models / file, 0))
        kept = {name: value.copy() for name, value in first.items()}
        session.run(make_inputs(session.inputs, models / file, 1))
        assert relative_difference(first, kept) == 0


def test_a_runtime_that_is_not_installed_is_named_with_its_extra(monkeypatch):
    absent = Engine("Fast Runtime", ("no-such-distribution",), ".fast", PADDLE.load, "bench")
    assert absent.version is None
    monkeypatch.setattr(engines, "ENGINES", (PADDLE, absent))
    assert missing_engines() == [
        "Fast Runtime is not installed and was left out: pip install 'paddle_sparse_cb[bench]'"
    ]


@RUNTIMES
@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_damaged_file_is_an_error_of_one_line(models, name, tmp_path):
    engine = next(engine for engine in ENGINES if name in engine.distributions)
    path = tmp_path / "model.onnx"
    for content in (b"", b"\x00" * 64, (models / "model.onnx").read_bytes()[:2000]):
        path.write_bytes(content)
        with pytest.raises(InputError, match=f"{engine.name} cannot load it") as error:
            load(engine, path, 1)
        assert "\n" not in str(error.value)


@RUNTIMES
@pytest.mark.parametrize("operator", ["save_combine", "load_combine", "py_func", "print", "send_v2", "c_comm_init"])
@pytest.mark.parametrize("nested", [False, True])
def test_a_program_that_does_more_than_compute_is_not_run(models, operator, nested, tmp_path):
    def edit(program):
        block = program.blocks[0]
        if nested:
            block = program.blocks.add(idx=1, parent_idx=0)
        block.ops.add(type=operator)

    path = edited_program(models, tmp_path, edit)
    with pytest.raises(InputError, match=f"will not be run: its operator '{operator}' does more than compute"):
        load(PADDLE, path, 1)


def test_inputs_are_noise_for_images_and_ones_for_the_rest(tmp_path):
    inputs = make_inputs({"image": (1, 3, 8, 8), "scale_factor": (-1, 2)}, tmp_path)
    assert inputs["image"].shape == (1, 3, 8, 8)
    assert inputs["image"].std() > 0.5
    np.testing.assert_array_equal(inputs["scale_factor"], [[1, 1]])
    assert all(array.dtype == np.float32 for array in inputs.values())


def test_a_size_that_is_not_fixed_is_an_error(tmp_path):
    with pytest.raises(InputError, match=r"input 'image' has the shape \[1, 3, -1, 8\]; export it with a fixed size"):
        make_inputs({"image": (1, 3, -1, 8)}, tmp_path)


@RUNTIMES
def test_an_input_of_another_type_is_an_error(tmp_path):
    import onnx
    from onnx import TensorProto, helper

    value = helper.make_tensor_value_info
    node = helper.make_node("Identity", ["ids"], ["out"])
    graph = helper.make_graph(
        [node], "g", [value("ids", TensorProto.INT64, [1, 2])], [value("out", TensorProto.INT64, [1, 2])]
    )
    path = tmp_path / "ids.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8), str(path))
    for engine in ENGINES:
        if engine.suffix == ".onnx":
            with pytest.raises(InputError, match="input 'ids' is not of 32-bit floats"):
                load(engine, path, 1)


QUIET = """
import json, os, sys
events = []
def audit(name, arguments):
    if name in ("socket.connect", "socket.getaddrinfo", "socket.sendto", "subprocess.Popen", "os.system", "os.exec"):
        events.append(f"{name} {arguments}")
from pathlib import Path
# Paddle and PaddleSlim start processes of their own when they are imported; the runtimes are imported by `load`.
from paddle_sparse_cb.deploy.bench.engines import ENGINES, load, make_inputs
sys.addaudithook(audit)
folder = Path(sys.argv[1])
for engine in ENGINES:
    for path in sorted(folder.glob(f"*{engine.suffix}")):
        session = load(engine, path, 1)
        session.run(make_inputs(session.inputs, path))
sockets = []
for fd in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else []:
    try:
        sockets += [fd] if os.readlink(f"/proc/self/fd/{fd}").startswith("socket:") else []
    except OSError:
        pass
used = sorted({name.partition(".")[0] for name in sys.modules} & {"onnxruntime", "openvino", "MNN"})
telemetry = "openvino_telemetry" in sys.modules
print(json.dumps({"events": events, "sockets": sockets, "telemetry": telemetry, "used": used}))
"""


@RUNTIMES
@pytest.mark.slow
def test_no_runtime_opens_a_connection_starts_a_process_or_writes_to_the_home_folder(models, tmp_path):
    """Importing OpenVINO alone would send an event, and create `~/intel` with an identifier."""
    home = tmp_path / "home"
    home.mkdir()
    environment = {**os.environ, "HOME": str(home), "MPLCONFIGDIR": str(tmp_path / "matplotlib")}  # PaddleSlim's
    done = subprocess.run([sys.executable, "-c", QUIET, str(models)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "events": [],
        "sockets": [],
        "telemetry": False,
        "used": ["MNN", "onnxruntime", "openvino"],
    }
    assert [path for path in home.rglob("*") if path.is_file()] == []
