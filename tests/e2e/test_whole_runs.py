"""Complete runs of a small recipe."""

import contextlib
import io
import json
import re
import runpy
import shlex
import shutil
from collections import Counter
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import paddle
import pytest
import soak
from helpers import RECIPES, curves, events

from paddle_sparse_cb import Detector
from paddle_sparse_cb.callbacks import ema
from paddle_sparse_cb.callbacks.weight_average import WeightAverage
from paddle_sparse_cb.cli import main
from paddle_sparse_cb.deploy.bench.engines import PADDLE, load
from paddle_sparse_cb.deploy.export import export
from paddle_sparse_cb.deploy.lite import optimizer
from paddle_sparse_cb.detection.datasets import samples
from paddle_sparse_cb.recipe.bench_eval import DetectorEvaluation
from paddle_sparse_cb.recipe.commands import load_trained
from paddle_sparse_cb.recipe.schema import read_recipe
from paddle_sparse_cb.utils.weight_files import load_arrays, load_inference

# One worker of pytest-xdist runs them all: they share one trained recipe.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("whole runs")]

# The demo with 16 tiles of 192 pixels, the smallest size that the label assigner accepts.
SMALL = """
epoch: {epochs}
snapshot_epoch: 1
TrainDataset: {{sample_num: 16}}
EvalDataset: {{sample_num: 5}}
TrainReader:
  batch_size: 4
  batch_transforms:
  - BatchRandomResize: {{target_size: [192, 224], random_size: True, random_interp: True, keep_ratio: False}}
  - NormalizeImage: {{is_scale: true, mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]}}
  - Permute: {{}}
  - PadGT: {{}}
"""


def write_recipes(folder, more=""):
    (folder / "small.yml").write_text(f"_BASE_: [{RECIPES}/picodet_s_416_trees.yml]\n" + SMALL.format(epochs=1))
    (folder / "small75.yml").write_text(
        f"_BASE_: [{RECIPES}/picodet_s_416_trees_sparse75.yml]\n"
        + SMALL.format(epochs=2)
        + "pretrain_weights: recipe:small.yml\n"
        "Sparsity: {pruning_epochs: 1, tunning_epochs: 1, pruning_steps: 4, log_freq: 1}\n"
        "export: {bench: false}\n" + more
    )


def write_recipes_with_dense_model(folder, trained):
    """Writes recipes whose dense model is the one of `trained`; returns its output folder."""
    write_recipes(folder)
    dense = folder / "output" / "small"
    dense.parent.mkdir()
    dense.symlink_to(trained[0] / "output" / "small")
    return dense


class RecordingAverage(WeightAverage):
    """Records the weights at each step."""

    steps: ClassVar[list[dict]] = []

    def __init__(self, network, *rest):
        self.network = network
        super().__init__(network, *rest)

    def update(self):
        self.steps.append({name: tensor.numpy() for name, tensor in self.network.state_dict().items()})
        super().update()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a complete run with averaged weights, what it printed, and its weights at each step."""
    folder, printed = tmp_path_factory.mktemp("run"), io.StringIO()
    write_recipes(folder, "use_ema: true\nema_decay: 0.9\nema_decay_type: normal\ncycle_epoch: 40\n")
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.chdir(folder)
        patch.setattr(ema, "WeightAverage", RecordingAverage)
        patch.setattr("sys.argv", ["train.py", "-c", "small75.yml"])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(RECIPES / "train.py"), run_name="__main__")
    assert ended.value.code == 0, printed.getvalue()
    return folder, printed.getvalue(), RecordingAverage.steps


@pytest.fixture
def output(trained):
    return trained[0] / "output" / "small75"


def test_a_run_prints_each_step_and_ends_with_the_table(trained):
    printed = trained[1]
    for line in (
        "training the dense model first",
        "weights of sample:picodet_s_416_lcnet: 435 arrays loaded",
        "before pruning: mAP",
        "exporting the network",
        "running Paddle-Lite's optimizer",
        "verifying the files",
        "40 of 98",
        "output/small75/report.md",
    ):
        assert line in printed


def test_a_run_ends_with_its_result_and_the_commands_to_copy(trained, monkeypatch):
    *_, result, title, predict, verify, report, compare, curves_ = trained[1].splitlines()
    assert re.fullmatch(
        r"small75: 75% sparse mAP [\d.]+, .nb 3.\d\d MB; dense mAP [\d.]+, .nb 4.\d\d MB; \d+ s", result
    )
    assert title == "next:"
    assert predict.split("#")[0].strip() == "paddle-sparse predict small75.yml IMAGE ..."
    assert compare.split("#")[0].strip() == "paddle-sparse predict small75.yml IMAGE ... --compare dense"
    assert curves_.split("#")[0].strip() == f"tensorboard --logdir {Path('output/small75/tensorboard')}"
    monkeypatch.chdir(trained[0])
    for command in (verify, report):
        assert main(shlex.split(command, comments=True)[1:]) == 0


def test_the_report_and_an_evaluation_are_printed_as_json(trained, output, monkeypatch, capsys):
    monkeypatch.chdir(trained[0])
    assert main(["report", "small75.yml", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report == json.loads((output / "report.json").read_text())
    assert main(["eval", "small75.yml", "--json"]) == 0
    evaluation = json.loads(capsys.readouterr().out)
    assert evaluation["mAP"] == pytest.approx(report["rows"][1]["map"], abs=1e-3)
    assert evaluation["sparsity"] >= 0.75
    assert evaluation["checkpoint"] == f"output/small75/checkpoints/{report['checkpoint']}.pdparams"


def test_all_files_are_in_the_output_folder(trained, output):
    assert {path.name for path in output.glob("[!.]*")} == {
        "tensorboard",
        "checkpoints",
        "evaluation_dense.json",
        "evaluation_sparse.json",
        "evaluations.json",
        "inference",
        "manifest.json",
        "model_dense.nb",
        "model_sparse.nb",
        "pictures",
        "report.html",
        "report.json",
        "report.md",
    }
    assert {path.name for path in trained[0].iterdir()} == {"output", "small.yml", "small75.yml"}


def test_the_report_holds(output):
    report = json.loads((output / "report.json").read_text())
    dense, sparse = report["rows"]
    assert dense["sparsity"] == 0
    assert sparse["sparsity"] >= sparse["target_sparsity"] == 0.75
    assert sparse["sparse_convs"] == sum(layer["pruned"] for layer in report["layers"]) == 40
    assert sparse["nb_bytes"] < 0.7 * dense["nb_bytes"]
    assert dense["convs"] == sparse["convs"] == 98
    assert all(0 <= row["map"] <= row["ap50"] <= 1 for row in report["rows"])
    assert all(check["ok"] for check in report["checks"].values())
    assert report["checks"].keys() == {"checkpoints", "pdparams", "pdiparams", "nb", "manifest", "outputs"}


def test_a_pruned_weight_is_zero_in_every_file(output):
    report = json.loads((output / "report.json").read_text())
    pruned = {layer["name"]: layer for layer in report["layers"] if layer["pruned"]}
    checkpoints = [load_arrays(output / "checkpoints" / f"{name}.pdparams") for name in ("best_model", "final")]
    for arrays in (*checkpoints, load_inference(output / "inference/model")):
        for name, layer in pruned.items():
            zeros = arrays[name].size - np.count_nonzero(arrays[name])
            assert zeros == layer["zeros"] >= 0.75 * layer["numel"]
        assert not any((arrays[f"head.head_reg{level}.weight"] == 0).any() for level in range(4))


def test_the_recipe_and_its_exported_model_find_the_same_boxes(trained, output, monkeypatch):
    monkeypatch.chdir(trained[0])
    image = min((samples.resolve("trees_256") / "images").iterdir())
    ours, exported = (Detector(path) for path in ("small75.yml", output))
    assert ours.labels == exported.labels == ("tree",)
    boxes, expected = (detector.predict(image, 0.02) for detector in (ours, exported))
    assert len(boxes) == len(expected) > 5
    rows = [[[box.score, *box.box] for box in found] for found in (boxes, expected)]
    assert np.array(rows[0]) == pytest.approx(np.array(rows[1]), abs=1e-2)


def test_the_dense_and_the_sparse_boxes_are_drawn_side_by_side(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(trained[0])
    image = min((samples.resolve("trees_256") / "images").iterdir())
    pictures = tmp_path / "pictures"
    arguments = ["predict", "small75.yml", str(image), "--compare", "dense", "--output", str(pictures)]
    assert main([*arguments, "--threshold", "0.1"]) == 0
    [picture] = pictures.iterdir()
    height, width = cv2.imread(str(picture)).shape[:2]
    assert width > 2 * 512 > 2 * (height - 100)


def test_tensorboard_reads_the_curves(output):
    read = curves(output / "tensorboard")
    assert {
        "sparsity/actual",
        "sparsity/target",
        "train/loss",
        "train/lr",
        "train/loss_vfl",
        "eval/mAP",
        "eval/AP50",
    } <= read.keys()
    assert not [tag for tag in read if tag.startswith("sparsity_layer") or tag == "eval/loss"]
    assert read["sparsity/target"][-1] == (8, 0.75)
    assert [step for step, _ in read["sparsity/actual"]] == list(range(9))
    dense = json.loads((output / "report.json").read_text())["rows"][0]
    assert read["eval/mAP"][0] == (0, pytest.approx(dense["map"]))  # the dense baseline


def test_tensorboard_shows_report_plan_and_pictures_and_curves_of_the_dense_training(output):
    read = events(output / "tensorboard")
    tags = read.Tags()
    assert {"plan/text_summary", "report/text_summary", "custom_scalars__config__"} <= set(tags["tensors"])
    assert tags["histograms"] == ["sparsity/layers"]
    assert len(tags["images"]) == 4
    assert all(tag.startswith("validation/") for tag in tags["images"])
    assert read.Images(tags["images"][0])[0].width > 2 * read.Images(tags["images"][0])[0].height  # three panels
    dense = curves(output.parent / "small" / "tensorboard")
    assert {"train/loss", "train/lr", "eval/mAP"} <= dense.keys()


def test_the_report_for_a_colleague_is_one_file_with_pictures_and_curves(output):
    report, page = json.loads((output / "report.json").read_text()), (output / "report.html").read_text()
    splits = Counter(picture["split"] for picture in report["pictures"])
    assert splits["train"] == 4
    assert splits["example"] >= 3
    assert splits["eval"] >= 3
    shown = splits["train"] + 3 * (splits["example"] + splits["eval"])  # annotated, dense and sparse
    assert page.count('src="data:image/jpeg;base64,') == page.count("src=") == shown
    assert page.count("<svg") == 4
    assert report["commands"] == ["paddle-sparse train -c small75.yml"]
    assert report["data"]["train"] == {
        "folder": "sample:trees_256",
        "images": 16,
        "objects": report["classes"][0]["train_objects"],
        "median_size": [256, 256],
    }
    [tree] = report["classes"]
    for row, kind in zip(report["rows"], ("dense", "sparse")):
        assert tree[f"{kind}_ap"] == pytest.approx(row["map"])  # there is one class
    assert {"model_sparse.nb", "inference/model.pdiparams"} < {one["file"] for one in report["sizes"]}
    for words in ("40 of 40 layers to prune run with a sparse kernel", "Where dense and sparse differ most", "tree"):
        assert words in page


def test_the_exported_model_returns_boxes_and_their_number(output):
    exported = paddle.jit.load(str(output / "inference" / "model"))
    exported.eval()
    boxes, count = exported(paddle.rand([1, 3, 256, 256]), paddle.ones([1, 2]))
    assert boxes.shape[1] == 6
    assert int(count) == boxes.shape[0]


def test_each_step_can_be_repeated_by_its_command(trained, output, monkeypatch, capsys):
    monkeypatch.chdir(trained[0])
    size = (output / "model_sparse.nb").stat().st_size
    (output / "model_sparse.nb").unlink()
    for command, line in (
        ("export", "exporting"),
        ("optimize", "40 of 98"),
        ("verify", "nb: ok"),
        ("eval", "sparsity 75.0"),
        ("report", "40 of 98"),
    ):
        assert main([command, "small75.yml"]) == 0
        assert line in capsys.readouterr().out
    assert (output / "model_sparse.nb").stat().st_size == pytest.approx(size, abs=4096)  # names differ in length


def test_the_latency_is_measured_and_reported_on_request(trained, output, monkeypatch, capsys):
    monkeypatch.chdir(trained[0])
    assert main(["optimize", "small75.yml", "-o", "export.bench=true"]) == 0
    printed = capsys.readouterr().out
    assert "over fastest dense" in printed
    assert "machine: " in printed
    report = json.loads((output / "report.json").read_text())
    rows = report["bench"]["rows"]
    assert {row["runtime"] for row in rows} == {"Paddle Inference", "ONNX Runtime", "OpenVINO", "MNN"}
    assert not [row["note"] for row in rows if "DIFFER" in row["note"]]
    assert all(row["trained"] and row["ratio"] < 0.01 for row in rows if row["kind"] == "dense")  # before pruning
    sparse = {tuple(row["block"]): row for row in rows if row["kind"] == "sparse" and row["threads"] == 1}
    assert sparse.keys() == {(1, 1), (4, 1)}
    assert sparse[1, 1]["trained"]
    assert sparse[1, 1]["ratio"] == pytest.approx(0.75, abs=0.001)
    assert not sparse[4, 1]["trained"]
    assert sparse[1, 1]["mb"] < 0.7 * min(row["mb"] for row in rows if row["kind"] == "dense")
    assert f"{sparse[1, 1]['ms']:.2f}" in printed
    assert "## Latency" in (output / "report.md").read_text()


def test_map_is_the_same_in_a_runtime_as_in_paddle(trained, output, monkeypatch, tmp_path):
    monkeypatch.chdir(trained[0])
    recipe = read_recipe("small75.yml")
    run, _ = load_trained(recipe, None)
    with run.network.export_mode(*recipe.input_size, nms=False) as (detector, specs):
        prefix = export(detector, tmp_path / "model", specs)
    measured = DetectorEvaluation(run)(load(PADDLE, Path(f"{prefix}.pdmodel"), 1))
    assert measured == pytest.approx(json.loads((output / "report.json").read_text())["rows"][1]["map"], abs=1e-4)
    assert measured > 0


def test_verify_fails_on_a_dense_checkpoint(trained, output, monkeypatch, capsys):
    monkeypatch.chdir(trained[0])
    best, dense = output / "checkpoints/best_model.pdparams", trained[0] / "output/small/checkpoints/final.pdparams"
    content = best.read_bytes()
    best.write_bytes(dense.read_bytes())
    try:
        assert main(["verify", "small75.yml"]) == 1
    finally:
        best.write_bytes(content)
    printed = capsys.readouterr()
    assert printed.err.startswith("paddle-sparse: checkpoints: ")
    assert "best_model.pdparams does not belong to this checkpoint" in printed.err
    assert "pdparams: FAILED: 0.0000% zeros in the pruned weights" in printed.out


@pytest.mark.parametrize("name", ["model_sparse.nb", "model_dense.nb", "inference/model.pdiparams"])
def test_verify_fails_on_a_missing_file_and_names_it(trained, output, monkeypatch, capsys, name):
    monkeypatch.chdir(trained[0])
    (output / name).rename(output / "moved")
    try:
        assert main(["verify", "small75.yml"]) == 1
    finally:
        (output / "moved").rename(output / name)
    assert f"{name}: no such file" in capsys.readouterr().err


def test_verify_takes_files_and_folders(output, capsys):
    for path in ("checkpoints", "checkpoints/final.pdparams", "checkpoints/0.pdopt", "inference/model.pdiparams"):
        assert main(["verify", str(output / path)]) == 0
    assert main(["verify", str(output / "model_sparse.nb")]) == 0
    assert "40 of 98 convolutions have sparse kernels" in capsys.readouterr().out
    assert main(["verify", str(output / "none.nb")]) == 2


def test_without_lites_optimizer_the_results_of_earlier_steps_are_kept(trained, tmp_path, monkeypatch, capsys):
    dense = write_recipes_with_dense_model(tmp_path, trained)
    time_before = (dense / "checkpoints" / "final.pdparams").stat().st_mtime_ns
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as without:  # no interpreter that can run it
        without.setattr(shutil, "which", lambda name: None)
        without.setattr(optimizer, "find_interpreters", lambda version: iter(()))
        without.setattr(optimizer, "WHEEL_OF", {})
        without.setattr(optimizer, "find_spec", lambda name: None)
        assert main(["train", "small75.yml"]) == 1
    printed = capsys.readouterr()
    assert "Paddle-Lite's optimizer needs a Python 3.8, 3.10 or 3.11" in printed.err
    output = tmp_path / "output" / "small75"
    assert (output / "checkpoints" / "final.pdparams").is_file()
    assert (output / "inference" / "model.pdmodel").is_file()
    assert json.loads((output / "report.json").read_text())["rows"][1]["sparsity"] >= 0.75
    # It used the dense model that had been trained before.
    assert "using the dense model of small.yml" in printed.out
    assert (dense / "checkpoints" / "final.pdparams").stat().st_mtime_ns == time_before
    assert main(["optimize", "small75.yml"]) == 0
    assert "40 of 98" in capsys.readouterr().out


def average_in_double_precision(steps, decay):
    total = {name: np.zeros(array.shape) for name, array in steps[0].items()}
    for step in steps:
        total = {name: decay * array + (1 - decay) * step[name] for name, array in total.items()}
    return {name: array / (1 - decay ** len(steps)) for name, array in total.items()}


def test_with_use_ema_every_file_has_the_averaged_weights_and_the_zeros_of_the_masks(trained, output):
    steps = trained[2]
    expected, last = average_in_double_precision(steps, 0.9), steps[-1]
    report = json.loads((output / "report.json").read_text())
    pruned = [layer["name"] for layer in report["layers"] if layer["pruned"]]
    assert len(pruned) == 40
    files = [load_arrays(output / "checkpoints" / f"{name}.pdparams") for name in ("1", "final")]
    for arrays in [*files, load_inference(output / "inference" / "model")]:
        for name in pruned:
            kept = last[name] != 0  # the masks: no unpruned weight is zero after eight steps
            assert np.count_nonzero(~kept) == -(-kept.size * 3 // 4)
            np.testing.assert_array_equal(arrays[name] != 0, kept)
            np.testing.assert_allclose(arrays[name], expected[name] * kept, rtol=1e-4, atol=1e-6)
            assert (arrays[name] != last[name]).any()
    for name in files[-1]:  # the unpruned weights and the running statistics too
        if name not in pruned and name in expected:
            np.testing.assert_allclose(files[-1][name], expected[name], rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.fixture(scope="module")
def two_ranks(trained, tmp_path_factory):
    """The folder of a training of two ranks that starts from the dense model, and what `soak.undisturbed` returns."""
    folder = tmp_path_factory.mktemp("soak") / "reference"
    return soak.make_reference(folder, processes=2, weights=dense_weights(trained))


def dense_weights(trained):
    return trained[0] / "output" / "small" / "checkpoints" / "final.pdparams"


def test_two_ranks_train_one_network_and_evaluate_all_images(trained, two_ranks, monkeypatch, capsys):
    monkeypatch.chdir(two_ranks[0])
    report = json.loads(Path("output/soak/report.json").read_text())
    dense, sparse = report["rows"]
    assert sparse["sparsity"] >= 0.75
    assert all(check["ok"] for check in report["checks"].values())
    # A point before the first step, and one for each of the steps: 24 images, half of them on each rank.
    assert len(curves("output/soak/tensorboard")["sparsity/actual"]) == 1 + 12
    # The figures are of both ranks' boxes and of the saved network: one process measures the same before and after.
    assert dense["map"] > 0
    for row, arguments in ((dense, ["-o", f"weights={dense_weights(trained)}"]), (sparse, [])):
        assert main(["eval", "soak.yml", *arguments]) == 0
        measured = capsys.readouterr().out.splitlines()[-1]
        assert measured.startswith(f"mAP {row['map']:.4f}, AP50 {row['ap50']:.4f}")


def test_killed_trainings_of_two_ranks_resume_and_end_with_the_same_bytes(trained, two_ranks, tmp_path):
    tally = soak.soak(tmp_path, 2, kills=1, seed=11, reference=two_ranks, weights=dense_weights(trained))
    assert tally.differences == []
    assert tally.kills >= 1
    assert tally.resumes >= 1
