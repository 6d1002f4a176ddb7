"""Killed and interrupted trainings resume, and end with the same bytes as an undisturbed training."""

import json
import os
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest
import soak
from helpers import curves

from paddle_sparse_cb.cli import main

pytestmark = pytest.mark.slow
# The tests that share the reference training stay in one worker of pytest-xdist.
shares_reference = pytest.mark.xdist_group("reference training")
SEED = 14  # one kill before or after a rename, and one at a moment
COMMAND = [sys.executable, "-m", "paddle_sparse_cb"]


def run(folder, *arguments, **keywords):
    return subprocess.run([*COMMAND, *arguments], cwd=folder, capture_output=True, text=True, **keywords)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The folder of an undisturbed training, and the seconds to its first checkpoint and to its end."""
    return soak.make_reference(tmp_path_factory.mktemp("soak") / "reference", processes=1)


@pytest.fixture
def copy(reference, tmp_path):
    """A copy of the folder of the undisturbed training."""
    return shutil.copytree(reference[0], tmp_path / "copy")


@shares_reference
def test_killed_trainings_resume_and_end_with_the_same_bytes(reference, tmp_path):
    tally = soak.soak(tmp_path, 1, kills=2, seed=SEED, reference=reference)
    assert tally.differences == []
    assert tally.kills >= 2
    assert tally.resumes >= 1


def test_ending_a_training_kills_every_rank(tmp_path):
    soak.write_recipe(tmp_path, 2)
    training = soak.start(tmp_path, 2, resume=False)
    try:
        while len(ranks := psutil.Process(training.pid).children(recursive=True)) < 2:
            assert training.poll() is None
            time.sleep(0.02)
    finally:
        soak.end(training)
    assert not any(rank.is_running() for rank in ranks)


@shares_reference
def test_the_comparison_detects_changed_and_missing_files(reference, copy):
    assert soak.compare(reference[0], copy) == []
    log = copy / "output" / "soak" / "evaluations.json"
    rows = json.loads(log.read_text())
    rows[0]["mAP"] += 1e-9
    log.write_text(json.dumps(rows, indent=1) + "\n")
    (copy / "output" / "soak" / "checkpoints" / "0.pdema").unlink()
    assert soak.compare(reference[0], copy) == ["checkpoints/0.pdema", "evaluations.json"]


def interrupt(folder, arguments, checkpoint, number):
    """Interrupts a training once a checkpoint exists, by a signal to the process group, as a terminal sends it.

    Without a signal, by closing its standard output, as in `paddle-sparse train RECIPE | head -1`.

    Returns:
        The exit code, and what the training printed on standard error.
    """
    training = subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        while not list(folder.glob(f"output/soak/checkpoints/{checkpoint}")):
            assert training.poll() is None, training.communicate()
            time.sleep(0.02)
        workers = psutil.Process(training.pid).children(recursive=True)
        if number:
            os.killpg(training.pid, number)
        else:
            training.stdout.close()
        stderr = training.stderr.read()
        training.wait(120)
    finally:
        training.kill()
        training.stdout.close()
        training.stderr.close()
    assert not psutil.wait_procs(workers, timeout=60)[1]
    return training.returncode, stderr


@shares_reference
def test_interrupted_trainings_resume_with_the_printed_command_and_end_with_the_same_bytes(reference, tmp_path):
    soak.write_recipe(tmp_path, 1)
    arguments = ["train", "soak.yml"]
    for checkpoint, number in (("0_*.pdsparse", signal.SIGINT), ("1_*.pdsparse", signal.SIGTERM), ("2_*.pdsparse", 0)):
        code, stderr = interrupt(tmp_path, arguments, checkpoint, number)
        assert "Traceback" not in stderr
        *_, stopped, hint = stderr.splitlines()
        if number:
            assert code == 128 + number
            assert stopped.startswith(f"paddle-sparse: interrupted by {signal.Signals(number).name}: saved output/soak")
        else:
            assert code == 1
            assert stopped == "paddle-sparse: stopped: nobody reads its output any more"
        assert hint == "resume with: paddle-sparse train soak.yml --resume"
        arguments = shlex.split(hint.partition(": paddle-sparse ")[2])
    done = run(tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    assert "resuming from output/soak/checkpoints/2_" in done.stdout
    assert soak.compare(reference[0], tmp_path) == []
    report = (tmp_path / "output" / "soak" / "report.md").read_text()
    assert "| 75.00% |" in " ".join(report.split("Best mAP at each sparsity")[1].split())


@shares_reference
def test_on_a_full_disk_earlier_checkpoints_stay_intact_and_the_resume_command_is_printed(copy):
    checkpoints = copy / "output" / "soak" / "checkpoints"
    for name in ("2", "best_model", "final"):  # as if the training had been killed in its last epoch
        for file in checkpoints.glob(f"{name}.*"):
            file.unlink()
    before = {file.name: file.read_bytes() for file in checkpoints.iterdir()}
    done = run(
        copy,
        "train",
        "soak.yml",
        "--resume",
        "-o",
        "worker_num=0",  # the limit is one on shared memory too
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)),
    )
    assert done.returncode == 1
    *_, error, hint = done.stderr.splitlines()
    assert error == "paddle-sparse: output/soak/checkpoints/2_1: File too large"
    assert hint == "resume with: paddle-sparse train soak.yml --resume -o worker_num=0"
    assert {file.name: file.read_bytes() for file in checkpoints.iterdir()} == before


@shares_reference
def test_a_training_from_weights_whose_heads_do_not_fit_has_no_dense_row_and_says_why(reference):
    output = reference[0] / "output" / "soak"
    report = json.loads((output / "report.json").read_text())
    assert [row["name"] for row in report["rows"]] == ["sparse"]
    assert report["dense_note"].startswith("no dense baseline: the prediction heads do not fit the start weights")
    assert "pretrain_weights: recipe:FILE" in report["dense_note"]
    printed = soak.printed(reference[0])
    assert "the prediction heads do not fit (80 classes in the file, 1 here) and start untrained: head." in printed
    assert "before pruning: mAP" not in printed
    assert report["dense_note"] in (output / "report.md").read_text()


@shares_reference
def test_the_report_names_the_exported_checkpoint(reference):
    output = reference[0] / "output" / "soak"
    assert json.loads((output / "report.json").read_text())["checkpoint"] == "best_model"
    assert "best_model" in (output / "report.md").read_text()


@shares_reference
def test_another_ratio_is_refused_before_the_training(reference, monkeypatch, capsys):
    monkeypatch.chdir(reference[0])
    assert main(["train", "--resume", "soak.yml", "-o", "Sparsity.ratio=0.8"]) == 2
    assert "2.pdsparse: Sparsity: ratio is 0.75 in the checkpoint and 0.8 in this run\n" in capsys.readouterr().err


@shares_reference
def test_with_allow_config_change_a_training_resumes_to_another_ratio(copy, monkeypatch, capsys):
    monkeypatch.chdir(copy)
    arguments = ["--resume", "output/soak/checkpoints/1", "--allow-config-change", "-o", "Sparsity.ratio=0.85"]
    assert main(["train", "soak.yml", *arguments]) == 0, capsys.readouterr()
    assert json.loads((copy / "output" / "soak" / "report.json").read_text())["rows"][-1]["sparsity"] >= 0.85
    assert max(step for step, _ in curves(copy / "output" / "soak" / "tensorboard")["sparsity/actual"]) == 12
