"""A signal to the whole process group, as a terminal or a scheduler sends it, ends a training cleanly."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
import soak

from paddle_sparse_cb.cli import main
from paddle_sparse_cb.recipe.output_folder import run_files

pytestmark = pytest.mark.slow
ARGUMENTS = ["train", "soak.yml", "-o", "worker_num=2"]
COMMAND = [sys.executable, "-m", "paddle_sparse_cb", *ARGUMENTS]


def start(folder):
    soak.write_recipe(folder, 1)
    return subprocess.Popen(
        COMMAND,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(condition, training):
    deadline = time.monotonic() + 120
    while not condition():
        assert training.poll() is None, training.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def end(training, number):
    """Sends a signal to the process group; returns the lines on standard error."""
    workers = psutil.Process(training.pid).children(recursive=True)
    os.killpg(training.pid, number)
    _, stderr = training.communicate(timeout=120)
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive
    return [
        line
        for line in stderr.splitlines()
        if line.startswith(("paddle-sparse", "resume", "Traceback")) or "Error" in line
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_with_data_workers_a_checkpoint_is_saved_and_the_workers_end(tmp_path, number):
    training = start(tmp_path)
    try:
        wait_for(lambda: list(tmp_path.glob("output/soak/checkpoints/*.pdsparse")), training)
        stopped, hint = end(training, number)
    finally:
        training.kill()
    assert training.returncode == 128 + number
    assert stopped.startswith(f"paddle-sparse: interrupted by {signal.Signals(number).name}: saved output/soak/")
    assert hint == "resume with: paddle-sparse train soak.yml -o worker_num=2 --resume"


def test_a_training_whose_output_nobody_reads_ends_without_a_traceback_and_can_be_resumed(tmp_path):
    """As in `paddle-sparse train RECIPE | head -1`."""
    training = start(tmp_path)
    try:
        wait_for(lambda: list(tmp_path.glob("output/soak/checkpoints/*.pdsparse")), training)
        training.stdout.close()
        stderr = training.stderr.read()
        assert training.wait(120) == 1
    finally:
        training.kill()
        training.stderr.close()
    assert "Traceback" not in stderr
    stopped, hint = [line for line in stderr.splitlines() if line.startswith(("paddle-sparse", "resume"))]
    assert stopped == "paddle-sparse: stopped: nobody reads its output any more"
    assert hint == "resume with: paddle-sparse train soak.yml -o worker_num=2 --resume"
    assert list(tmp_path.glob("output/soak/checkpoints/*.pdsparse"))


def test_a_running_training_keeps_a_second_one_out_and_a_killed_one_is_archived(tmp_path, monkeypatch, capsys):
    training, output = start(tmp_path), tmp_path / "output" / "soak"
    monkeypatch.chdir(tmp_path)
    try:
        wait_for(lambda: list(output.glob("checkpoints/*.pdsparse")), training)
        os.killpg(training.pid, signal.SIGSTOP)  # so that it is still running
        assert main(ARGUMENTS) == 2
        assert f"paddle-sparse: output/soak is in use by process {training.pid} on" in capsys.readouterr().err
        workers = psutil.Process(training.pid).children(recursive=True)
    finally:
        training.kill()
        training.communicate(timeout=60)  # workers that survived would keep its output open
    assert workers
    assert not psutil.wait_procs(workers, timeout=60)[1]
    assert main(ARGUMENTS) == 0
    printed = capsys.readouterr().out
    assert "earlier.1; it was interrupted: --resume output/soak/earlier.1/checkpoints resumes it (" in printed
    assert list((output / "earlier.1" / "checkpoints").glob("*.pdsparse"))
    visible = {path.name for path in output.glob("[!.]*")} - {"earlier.1"}
    assert visible == set(run_files(output))  # the next start archives all of them
