"""Folders of models: a recipe's, anybody's, and none."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from paddle_sparse_cb import InputError
from paddle_sparse_cb.cli import main
from paddle_sparse_cb.deploy.bench import folder
from paddle_sparse_cb.deploy.bench.engines import ENGINES, MNN, PADDLE
from paddle_sparse_cb.deploy.bench.folder import find_candidates, zero_ratio
from paddle_sparse_cb.deploy.bench.rows import Row
from paddle_sparse_cb.deploy.bench.run import (
    BenchOptions,
    Candidate,
    make_result,
    measure_rows,
    model_bytes,
    relative_difference,
)

from .conftest import RATIO, RUNTIMES


@RUNTIMES
def test_every_model_is_found_with_its_kernels_and_zeros(models):
    candidates, notes = find_candidates(models)
    found = {(one.engine.name, one.label): (one.kind, one.ratio, one.block) for one in candidates}
    dense = ("dense", pytest.approx(RATIO, abs=0.01), (1, 1))
    assert found == {
        ("Paddle Inference", "model.pdmodel"): dense,
        ("ONNX Runtime", "model.onnx"): dense,
        ("OpenVINO", "model.onnx"): dense,
        ("MNN", "dense.mnn"): dense,
        ("MNN", "sparse.mnn"): ("sparse", pytest.approx(RATIO, abs=0.01), (1, 1)),
    }
    assert notes == []


@RUNTIMES
def test_the_output_folder_of_a_recipe_has_its_exported_model_in_a_subfolder(models, tmp_path):
    (tmp_path / "inference").mkdir()
    for name in ("model.pdmodel", "model.pdiparams", "model.pdiparams.info"):
        shutil.copy(models / name, tmp_path / "inference" / name)
    (tmp_path / "model_sparse.nb").write_bytes(b"nb")
    (tmp_path / "report.json").write_text("{}")
    candidates, notes = find_candidates(tmp_path)
    assert [one.label for one in candidates] == ["inference/model.pdmodel"]
    assert notes == ["model_sparse.nb: runs on ARM only: measure it on a device (--runner or --adb)"]


def test_a_folder_without_models_is_an_error_of_one_line(tmp_path):
    with pytest.raises(InputError, match=r"no model that this machine can run: no \.pdmodel, \.onnx, \.mnn file$"):
        find_candidates(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "model.nb").write_bytes(b"x")
    with pytest.raises(InputError, match=r"no \.pdmodel, \.onnx, \.mnn file \(model\.nb: runs on ARM only"):
        find_candidates(tmp_path)


@RUNTIMES
@pytest.mark.parametrize("name", ["model.onnx", "model.pdmodel", "sparse.mnn"])
@pytest.mark.parametrize("content", [b"", b"\x08\x07" + b"\xff" * 99, b"not a model\n"])
def test_a_file_that_is_no_model_is_an_error_of_one_line(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=name) as error:
        measure_rows(find_candidates(tmp_path)[0], BenchOptions(seconds=0.01))
    assert "\n" not in str(error.value)


@RUNTIMES
@pytest.mark.parametrize("name", ["model.onnx", "model.pdmodel", "model.pdiparams", "sparse.mnn", "dense.mnn"])
def test_a_truncated_file_is_an_error_of_one_line(models, name, tmp_path):
    stem = name.partition(".")[0]
    for file in models.glob(f"{stem}.*"):
        shutil.copy(file, tmp_path)
    content = (models / name).read_bytes()
    for size in (len(content) // 3, len(content) - 1):
        (tmp_path / name).write_bytes(content[:size])
        with pytest.raises(InputError) as error:
            measure_rows(find_candidates(tmp_path)[0], BenchOptions(seconds=0.01))
        assert "\n" not in str(error.value)


@RUNTIMES
def test_weights_in_other_files_are_not_read(tmp_path):
    """An ONNX file may name any file as the place of its weights."""
    import onnx
    from onnx import TensorProto, helper

    value = helper.make_tensor_value_info
    weight = helper.make_tensor("w", TensorProto.FLOAT, [4, 4, 1, 1], [0.0] * 16)
    weight.ClearField("float_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="../../../../../../etc/hostname")
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"])],
        "g",
        [value("x", TensorProto.FLOAT, [1, 4, 8, 8])],
        [value("y", TensorProto.FLOAT, [1, 4, 8, 8])],
        [weight],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8), tmp_path / "m.onnx")
    candidates, _ = find_candidates(tmp_path)
    assert {one.ratio for one in candidates} == {None}
    for one in candidates:
        with pytest.raises(InputError, match=f"m.onnx: {one.engine.name} cannot load it"):
            measure_rows([one], BenchOptions(seconds=0.01))


def test_zeros_are_counted_in_pruned_1x1_convolutions_only():
    ones = np.ones((8, 8, 1, 1))
    pruned = ones.copy()
    pruned[:6] = 0
    assert zero_ratio([ones, pruned, np.zeros((8, 8, 3, 3)), np.zeros((8, 8))]) == 0.75
    assert zero_ratio([]) == 0


@RUNTIMES
def test_a_run_has_a_row_for_each_candidate_and_number_of_threads(models):
    candidates = [one for one in find_candidates(models)[0] if one.engine is MNN]  # whose threads do not spin
    lines = []
    rows = make_result(measure_rows(candidates, BenchOptions((1, 2), 0.01, log=lines.append)))["rows"]
    assert [(row["file"], row["threads"]) for row in rows] == [(one.label, n) for n in (1, 2) for one in candidates]
    sparse = [row for row in rows if row["kind"] == "sparse"]
    assert all(row["speedup"] is not None and row["speedup_fastest"] <= row["speedup"] + 1e-9 for row in sparse)
    assert all(row["ms"] > 0 and row["spread"] >= 0 and row["precision"] == "FP32" for row in rows)
    sizes = {row["file"]: row["mb"] for row in rows}
    assert sizes["sparse.mnn"] == (models / "sparse.mnn").stat().st_size / 1e6
    assert lines[0] == "loading 2 models ..."


@RUNTIMES
def test_the_size_of_a_program_includes_its_weights(models):
    program = [models / "model.pdmodel", models / "model.pdiparams"]
    assert model_bytes(PADDLE, program[0]) == sum(file.stat().st_size for file in program)


@RUNTIMES
def test_a_runtime_with_other_outputs_is_marked(models, tmp_path):
    """The sparse file of other weights, compared with Paddle's outputs for these ones."""
    import onnx
    from onnx import numpy_helper

    from paddle_sparse_cb.deploy.mnn.converter import convert

    model = onnx.load(models / "model.onnx")
    tensors = [
        *model.graph.initializer,
        *(one.t for node in model.graph.node for one in node.attribute if one.HasField("t")),
    ]
    largest = max(tensors, key=lambda tensor: np.prod(tensor.dims))
    largest.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(largest) * np.float32(1.5), largest.name))
    onnx.save(model, tmp_path / "other.onnx")
    other = convert(tmp_path / "other.onnx", tmp_path / "other.mnn", sparse=True)
    reference = models / "model.pdmodel"
    right = Candidate(MNN, models / "sparse.mnn", "sparse", RATIO, reference=reference)
    wrong = Candidate(MNN, other, "sparse", RATIO, reference=reference)
    rows = measure_rows(
        [Candidate(PADDLE, reference, "dense", RATIO, reference=reference), right, wrong], BenchOptions(seconds=0.01)
    )
    notes = [row.note for row in rows]
    assert notes[:2] == ["", ""]
    assert notes[2].startswith("OUTPUTS DIFFER from Paddle's by ")


@RUNTIMES
def test_trained_models_are_evaluated_once_on_the_most_threads(models):
    candidates = [
        Candidate(MNN, models / "dense.mnn", "dense", 0.0),
        Candidate(MNN, models / "sparse.mnn", "sparse", RATIO, is_trained=True),
    ]
    scores = iter([0.25])
    rows = measure_rows(candidates, BenchOptions((1, 2), 0.01, evaluate=lambda session: next(scores)))
    assert [row.map for row in rows] == [None, 0.25, None, 0.25]


def test_the_difference_of_outputs_is_relative_and_sees_other_shapes():
    one = {"a": np.array([3.0, 4.0]), "b": np.array([1e6])}
    assert relative_difference(one, one) == 0
    assert relative_difference({**one, "a": np.array([3.0, 4.5])}, one) == pytest.approx(0.1)
    assert relative_difference({"a": one["a"]}, one) == float("inf")
    assert relative_difference({**one, "b": np.array([[1e6]])}, one) == float("inf")
    assert not relative_difference({**one, "b": np.array([np.nan])}, one) <= 0.01


@RUNTIMES
def test_a_runtime_that_is_not_installed_is_left_out(models, monkeypatch):
    absent = [replace(engine, distributions=("no-such-distribution",)) for engine in ENGINES]
    monkeypatch.setattr(folder, "ENGINES", [PADDLE, *absent[1:]])
    assert [one.label for one in find_candidates(models)[0]] == ["model.pdmodel"]
    monkeypatch.setattr(folder, "ENGINES", absent)
    with pytest.raises(InputError, match="no runtime for dense.mnn is installed: pip install"):
        find_candidates(models)


def test_rows_of_a_device_join_the_table_and_are_compared_with_each_other_only():
    here = Row("MNN", "3.6.1", "dense", 0.0, (1, 1), "FP32", 1, 8.6, 10.0, 0.01)
    phone = replace(here, runtime="Paddle-Lite", device="phone", ms=41.3)
    sparse = replace(phone, kind="sparse", ratio=0.75, ms=25.8)
    result = make_result([here, phone, sparse], ["a note"])
    assert [row["device"] for row in result["rows"]] == ["", "phone", "phone"]
    assert [row["speedup_fastest"] for row in result["rows"]] == [0, 0, pytest.approx(0.6, abs=0.01)]
    assert result["notes"][0] == "a note"


@RUNTIMES
@pytest.mark.slow
def test_a_folder_is_measured_from_the_command_line(models, capsys):
    assert main(["bench", str(models), "--threads", "1", "--seconds", "0.1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["file", "runtime"]
    assert [line.split()[0] for line in lines[2:7]] == [
        "dense.mnn",
        "model.onnx",
        "model.onnx",
        "model.pdmodel",
        "sparse.mnn",
    ]
