"""`paddle-sparse bench`: what it measures of a recipe, what it prints, and its exit codes."""

import json
import subprocess
import sys

import pytest
from helpers import RECIPES

from paddle_sparse_cb import InputError
from paddle_sparse_cb.cli import main
from paddle_sparse_cb.cli_flags import parse_block, parse_speedup, split_list
from paddle_sparse_cb.errors import PipelineError
from paddle_sparse_cb.recipe.bench_folder import BenchRequest
from paddle_sparse_cb.recipe.bench_output import check_speedup

SPARSE = str(RECIPES / "picodet_s_416_trees_sparse75.yml")
SMALL = ["-o", "TestReader.inputs_def.image_shape=[3,128,128]", "--threads", "1", "--seconds", "0.1"]
KEYS = (
    *("runtime", "version", "kind", "ratio", "block", "precision", "threads", "mb", "ms", "spread"),
    *("speedup", "speedup_fastest", "map"),
)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """An untrained recipe, measured by a process of its own as a user starts it: its folder and what it printed."""
    folder = tmp_path_factory.mktemp("bench")
    command = [sys.executable, "-m", "paddle_sparse_cb", "bench", SPARSE, *SMALL, "--json", "--layers"]
    return folder, subprocess.run(command, cwd=folder, capture_output=True, text=True)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.xdist_group("bench")
def test_standard_output_is_json_and_nothing_else(measured):
    _, done = measured
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout, parse_constant=lambda name: pytest.fail(name))
    assert result.keys() == {"machine", "rows"}
    assert result["machine"]["cpu"]
    assert all(row.keys() >= set(KEYS) for row in result["rows"])


@pytest.mark.slow
@pytest.mark.xdist_group("bench")
def test_an_untrained_recipe_is_pruned_at_once_with_random_zeros_and_in_blocks(measured):
    _, done = measured
    rows = json.loads(done.stdout)["rows"]
    found = [(row["runtime"], row["kind"], row["block"]) for row in rows]
    assert found == [
        ("Paddle Inference", "dense", [1, 1]),
        ("ONNX Runtime", "dense", [1, 1]),
        ("OpenVINO", "dense", [1, 1]),
        ("MNN", "dense", [1, 1]),
        ("MNN", "sparse", [1, 1]),
        ("MNN", "sparse", [4, 1]),
    ]
    assert [row["ratio"] for row in rows] == pytest.approx([0, 0, 0, 0, 0.75, 0.75], abs=1e-3)
    assert {(row["threads"], row["precision"], row["map"], row["trained"]) for row in rows} == {
        (1, "FP32", None, False)
    }
    assert all("untrained weights" in row["note"] and "DIFFER" not in row["note"] for row in rows)
    assert all(row["mb"] < 0.7 * rows[3]["mb"] for row in rows[4:])
    assert rows[4]["speedup"] == pytest.approx((rows[3]["ms"] - rows[4]["ms"]) / rows[4]["ms"])
    fastest = min(row["ms"] for row in rows[:4])
    assert rows[5]["speedup_fastest"] == pytest.approx((fastest - rows[5]["ms"]) / rows[5]["ms"])
    assert "untrained weights, pruned at once by magnitude" in done.stderr


@pytest.mark.slow
@pytest.mark.xdist_group("bench")
def test_the_times_of_the_layers_have_the_names_of_the_plan(measured):
    folder, _ = measured
    layers = json.loads((folder / "output" / "picodet_s_416_trees_sparse75" / "layers.json").read_text())
    pruned = {layer["name"]: layer for layer in layers["layers"] if layer["purpose"] == "pruned convolutions"}
    assert len(pruned) == 40
    layer = pruned["neck.conv_t.convs.0.conv.weight"]
    assert (layer["shape"], layer["output_size"], layer["macs"]) == ([96, 96, 1, 1], [16, 16], 96 * 96 * 256)
    assert [(round(one["ratio"], 3), one["block"]) for one in layer["sparse"]] == [(0.75, [1, 1]), (0.75, [4, 1])]
    assert not list(folder.glob("*.nb"))
    assert {path.name for path in folder.iterdir()} == {"output"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([".", "--threads", "two"], "--threads: invalid value 'two'"),
        ([".", "--threads", "0"], "--threads must be between 1 and the"),
        ([".", "--threads", "100000"], "--threads must be between 1 and the"),
        ([".", "--ratio", "75"], "--ratio must be a fraction from 0.01 to below 1, got 75"),
        ([".", "--block", "4"], "--block: must be rows x columns, such as 4x1, got '4'"),
        ([".", "--seconds", "-1"], "--seconds must be above 0 and below 86400, got -1"),
        ([".", "--seconds", "nan"], "--seconds must be above 0 and below 86400, got nan"),
        ([".", "--fail-under", "fast"], "--fail-under: must be a speed-up such as 0.45 or 45%, got 'fast'"),
        ([".", "--fail-under", "45"], "--fail-under: 45 is 45 times faster; did you mean 45%?"),
        ([".", "--layers"], "--layers: . is a folder of models; this needs a recipe"),
        ([".", "--eval"], "--eval: . is a folder of models; this needs a recipe"),
        ([".", "--ratio", "0.5"], "--ratio: . is a folder of models; this needs a recipe"),
        (["."], ".: no model that this machine can run: no .pdmodel, .onnx, .mnn file"),
        (["none"], "none: no such recipe"),
    ],
)
def test_invalid_input_is_an_error_of_one_line(arguments, message, folder, capsys):
    assert main(["bench", *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    [line] = printed.err.strip().splitlines()
    assert line.startswith("paddle-sparse: ")
    assert message in line
    assert list(folder.iterdir()) == []


@pytest.mark.slow
def test_a_folder_needs_no_paddledetection(folder):
    code = (
        "import sys; sys.modules['ppdet'] = None; from paddle_sparse_cb.cli import main; sys.exit(main(['bench', '.']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "no model that this machine can run" in done.stderr
    assert done.returncode == 2


def row(kind, speedup_fastest, **more):
    common = {"runtime": "MNN", "ratio": 0.75, "block": [4, 1], "threads": 1, "disturbed": False}
    return {**common, "kind": kind, "speedup_fastest": speedup_fastest, **more}


def test_fail_under_looks_at_the_best_sparse_row():
    rows = [row("dense", 0.0), row("sparse", 0.1), row("sparse", 0.46), row("sparse", None)]
    check_speedup({"rows": rows}, 0.45)
    with pytest.raises(PipelineError, match=r"\(MNN, blocks 4x1, 1 threads\) is \+46\.0% over .* at least \+50\.0% is"):
        check_speedup({"rows": rows}, 0.5)
    with pytest.raises(PipelineError, match=r"required \(disturbed by other work\)"):
        check_speedup({"rows": [row("sparse", 0.1, disturbed=True)]}, 0.5)


@pytest.mark.parametrize("rows", [[], [row("dense", 0.0)], [row("sparse", None)]])
def test_fail_under_without_a_comparison_fails(rows):
    with pytest.raises(PipelineError, match="no sparse model was measured beside a dense one"):
        check_speedup({"rows": rows}, -1.0)


@pytest.mark.parametrize(
    ("text", "value"), [("0.45", 0.45), ("45%", 0.45), ("-5%", -0.05), ("+1.5", 1.5), (".5", 0.5), ("1000%", 10.0)]
)
def test_speed_ups_are_fractions_or_percentages(text, value):
    assert parse_speedup(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "x", "45 percent", "1e3", "inf", "nan", "10", "0x1"])
def test_anything_else_is_no_speed_up(text):
    with pytest.raises(InputError, match="--fail-under: "):
        parse_speedup(text)


def test_blocks_and_lists():
    assert parse_block("4x1") == (4, 1)
    for text in ("0x1", "4x", "x4", "-4x1", "4x1x1", "99999x1"):
        with pytest.raises(InputError, match="--block: "):
            parse_block(text)
    assert split_list("--threads", "1, 2,", int) == [1, 2]
    assert split_list("--threads", None, int) == []


def test_by_default_one_thread_and_all_cpus_are_measured_once_each():
    threads = BenchRequest().options().threads
    assert threads[0] == 1
    assert len(set(threads)) == len(threads) <= 2
    assert BenchRequest(threads=[1, 1]).options().threads == (1,)
