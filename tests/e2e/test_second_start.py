"""Two trainings never share an output folder, and a new one keeps what a killed one left."""

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


def write_dense_recipe(folder):
    """Writes the recipe of `soak` without its sparsity, so that nothing is exported."""
    soak.write_recipe(folder, 1)
    file = folder / "soak.yml"
    lines = file.read_text().replace("_sparse75.yml", ".yml").splitlines(keepends=True)
    file.write_text("".join(line for line in lines if not line.startswith("Sparsity")))


@pytest.mark.slow
def test_a_running_training_keeps_a_second_one_out_and_a_killed_one_is_archived(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_dense_recipe(tmp_path)
    output, command = tmp_path / "output" / "soak", [sys.executable, "-m", "paddle_sparse_cb", "train", "soak.yml"]
    training = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        while not list(output.glob("checkpoints/*.pdsparse")):
            assert training.poll() is None
            time.sleep(0.02)
        os.killpg(training.pid, signal.SIGSTOP)  # so that it is still running
        assert main(["train", "soak.yml"]) == 2
        assert f"paddle-sparse: output/soak is in use by process {training.pid} on" in capsys.readouterr().err
        workers = psutil.Process(training.pid).children(recursive=True)
    finally:
        training.kill()
        training.wait()
    assert workers
    assert not psutil.wait_procs(workers, timeout=60)[1]
    assert main(["train", "soak.yml"]) == 0
    printed = capsys.readouterr().out
    assert "earlier.1; it was interrupted: --resume output/soak/earlier.1/checkpoints resumes it (" in printed
    assert list((output / "earlier.1" / "checkpoints").glob("*.pdsparse"))
    visible = {path.name for path in output.glob("[!.]*")} - {"earlier.1"}
    assert visible == set(run_files(output))  # the next start archives all of them
