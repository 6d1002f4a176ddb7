"""Trainings that are killed or told to end go on as if they never had, by the command that they print."""

import json
import resource
import shlex
import signal
import subprocess
import sys
import time

import psutil
import pytest
from helpers import RECIPES, curves

sys.path.insert(0, str(RECIPES.parent / "tools"))
import soak

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """A training that was left in peace, and the seconds to its first checkpoint and to its end."""
    folder = tmp_path_factory.mktemp("reference")
    soak.write_recipe(folder, 1)
    return folder, soak.undisturbed(folder, 1)


@pytest.mark.parametrize(("processes", "kills"), [(1, 4), (2, 2)])
def test_killed_trainings_end_with_the_same_bytes(tmp_path, processes, kills):
    tally = soak.soak(tmp_path, processes, kills, seed=11)
    assert tally.differences == []
    assert tally.kills >= kills
    assert tally.resumes >= 1


def test_a_kill_takes_every_rank(tmp_path):
    soak.write_recipe(tmp_path, 2)
    training = soak.start(tmp_path, 2, resume=False)
    try:
        while len(ranks := psutil.Process(training.pid).children(recursive=True)) < 2:
            assert training.poll() is None
            time.sleep(0.02)
    finally:
        soak.end(training)
    assert not any(rank.is_running() for rank in ranks)


def test_the_comparison_sees_a_difference(reference, tmp_path):
    folder, _ = reference
    other = tmp_path / "other"
    subprocess.run(["cp", "-r", str(folder), str(other)], check=True)
    assert soak.compare(folder, other) == []
    log = other / "output" / "soak" / "evaluations.json"
    rows = json.loads(log.read_text())
    rows[0]["mAP"] += 1e-9
    log.write_text(json.dumps(rows, indent=1) + "\n")
    (other / "output" / "soak" / "checkpoints" / "0.pdema").unlink()
    assert soak.compare(folder, other) == ["checkpoints/0.pdema", "evaluations.json"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_that_an_interrupted_training_prints_goes_on_with_it(reference, tmp_path, number):
    soak.write_recipe(tmp_path, 1)
    command = [sys.executable, "-m", "paddle_sparse_cb", "train", "soak.yml"]
    training = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        while not list(tmp_path.glob("output/soak/checkpoints/0_*.pdsparse")):
            assert training.poll() is None
            time.sleep(0.02)
        training.send_signal(number)
        _, said = training.communicate(timeout=120)
    finally:
        training.kill()
    assert training.returncode == 128 + number
    *_, stopped, go_on = said.splitlines()
    assert stopped.startswith(f"paddle-sparse: interrupted by {signal.Signals(number).name}: saved output/soak/")
    assert go_on == "resume with: paddle-sparse train soak.yml --resume"
    words = shlex.split(go_on.partition(": paddle-sparse ")[2])
    done = subprocess.run([*command[:3], *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "resuming from output/soak/checkpoints/" in done.stdout
    assert soak.compare(reference[0], tmp_path) == []
    report = (tmp_path / "output" / "soak" / "report.md").read_text()
    assert "| 75.00% |" in " ".join(report.split("Best mAP at each sparsity")[1].split())


def test_where_there_is_no_room_the_run_says_so_and_how_it_goes_on(reference, tmp_path):
    folder = tmp_path / "full"
    subprocess.run(["cp", "-r", str(reference[0]), str(folder)], check=True)
    checkpoints = folder / "output" / "soak" / "checkpoints"
    for file in [*checkpoints.glob("2.*"), *checkpoints.glob("final.*")]:
        file.unlink()
    before = {file.name: file.read_bytes() for file in checkpoints.iterdir()}
    done = subprocess.run([sys.executable, "-m", "paddle_sparse_cb", "train", "soak.yml", "--resume"], cwd=folder,
                          capture_output=True, text=True,
                          preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)))
    assert done.returncode == 1
    said = done.stderr.splitlines()
    assert said[-2] == "paddle-sparse: output/soak/checkpoints/2_1: File too large"
    assert said[-1] == "resume with: paddle-sparse train soak.yml --resume"
    assert {file.name: file.read_bytes() for file in checkpoints.iterdir()} == before


def test_a_start_from_weights_whose_heads_do_not_fit_has_no_dense_row_and_says_why(reference):
    output = reference[0] / "output" / "soak"
    report = json.loads((output / "report.json").read_text())
    assert [row["name"] for row in report["rows"]] == ["sparse"]
    assert report["dense_note"].startswith("no dense baseline: the prediction heads do not fit the start weights")
    assert "pretrain_weights: recipe:FILE" in report["dense_note"]
    said = soak.printed(reference[0])
    assert "the prediction heads do not fit (80 classes in the file, 1 here) and start untrained: head." in said
    assert "before pruning: mAP" not in said
    assert report["dense_note"] in (output / "report.md").read_text()


def test_the_report_names_the_exported_checkpoint(reference):
    output = reference[0] / "output" / "soak"
    assert json.loads((output / "report.json").read_text())["checkpoint"] == "best_model"
    assert "best_model" in (output / "report.md").read_text()


def test_another_recipe_is_told_before_anything_is_trained(reference):
    done = subprocess.run([sys.executable, "-m", "paddle_sparse_cb", "train", "--resume", "soak.yml", "-o",
                           "Sparsity.ratio=0.8"], cwd=reference[0], capture_output=True, text=True)
    assert done.returncode == 2
    assert "2.pdsparse: Sparsity: ratio is 0.75 in the checkpoint and 0.8 in this run" in done.stderr.splitlines()[-1]


def test_another_ratio_can_be_gone_on_to(reference, tmp_path):
    folder = tmp_path / "changed"
    subprocess.run(["cp", "-r", str(reference[0]), str(folder)], check=True)
    done = subprocess.run([sys.executable, "-m", "paddle_sparse_cb", "train", "soak.yml", "--resume",
                           "output/soak/checkpoints/1", "--allow-config-change", "-o", "Sparsity.ratio=0.85"],
                          cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads((folder / "output" / "soak" / "report.json").read_text())["rows"][-1]["sparsity"] >= 0.85
    assert max(step for step, _ in curves(folder / "output" / "soak" / "tensorboard")["sparsity/actual"]) == 12
