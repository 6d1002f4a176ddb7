"""Two processes, and two nodes, train one network: with the same masks, or not at all."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest
from helpers import Pointwise, classifier
from rank_training import STEPS, UPDATES

from paddle_sparse_cb import SparsityCallback
from paddle_sparse_cb.callbacks.sync_buffers import SyncBuffers
from paddle_sparse_cb.utils import distributed as ranks
from paddle_sparse_cb.utils.weight_files import load_arrays

TESTS = Path(__file__).parent.parent
STATISTICS = ("_mean", "_variance")
LIMIT = 180  # seconds on a busy machine, for what takes ten; a rank that waits for another would wait for half an hour


def start(mode, folder, *options):
    """Starts a launcher in a process group of its own, so that its ranks can be ended with it."""
    path = os.pathsep.join([str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-m", "paddle.distributed.launch", *options, str(TESTS / "rank_training.py"), mode,
         str(folder)], cwd=folder, env={**os.environ, "PYTHONPATH": path}, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def finish(launchers, logs):
    """Waits; gives the exit codes, and what each rank said."""
    try:
        codes = [launcher.wait(LIMIT) for launcher in launchers]
    finally:
        for launcher in launchers:
            if launcher.poll() is None:
                os.killpg(launcher.pid, signal.SIGKILL)
    return codes, [path.read_text() for folder in logs for path in sorted(folder.glob("workerlog.*"))]


def two_processes(mode, folder):
    return finish([start(mode, folder, "--nproc_per_node", "2", "--log_dir", "logs")], [folder / "logs"])


def two_nodes(mode, folder):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    logs = [folder / f"node{node}" for node in range(2)]
    options = ("--nnodes", "2", "--nproc_per_node", "1", "--master", f"127.0.0.1:{port}")
    return finish([start(mode, folder, *options, "--rank", str(node), "--log_dir", str(log))
                   for node, log in enumerate(logs)], logs)


def results(folder):
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def check_one_network(folder):
    first, second = results(folder)
    assert first["begun"] == second["begun"]  # though each rank was seeded by its number
    assert len(first["masks"]) == STEPS
    assert first["masks"] == second["masks"]
    assert len({tuple(masks) for masks in first["masks"]}) == UPDATES + 1  # a mask an update: the comparison compared
    for name, values in first["ended"].items():  # running statistics are each rank's own until an evaluation
        assert (values == second["ended"][name]) == (bool(first["evaluated"]) or not name.endswith(STATISTICS))
    # One gather an update, none between; an evaluation gathers outputs and labels of each batch.
    batches = STEPS if first["evaluated"] else 0
    assert first["gathers"] == second["gathers"] == UPDATES + 1 + 2 * batches
    return first, second


@pytest.mark.slow
def test_two_ranks_train_evaluate_and_save_one_network(tmp_path):
    codes, said = two_processes("fit", tmp_path)
    assert codes == [0], said
    first, second = check_one_network(tmp_path)
    assert first["evaluated"] == second["evaluated"]  # running statistics included
    saved = load_arrays(tmp_path / "checkpoints" / "0.pdparams")
    for name, values in first["evaluated"][0].items():
        np.testing.assert_array_equal(saved[name].ravel(), np.float32(values))


@pytest.mark.slow
def test_two_nodes_train_one_network(tmp_path):
    codes, said = two_nodes("plain", tmp_path)
    assert codes == [0, 0], said
    check_one_network(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("run", [two_processes, two_nodes])
def test_a_rank_that_parts_stops_all_with_the_layers_name(tmp_path, run):
    codes, said = run("diverge", tmp_path)
    assert all(code != 0 for code in codes)
    for text in said:
        assert re.search(r"RankMismatchError: the masks of the ranks differ: at optimizer step 4 rank 1 has another "
                         r"mask of project\.weight than rank 0", text), text
    assert len(said) == 2
    assert not list(tmp_path.glob("*.json"))


@pytest.mark.slow
def test_the_pruner_alone_compares_too(tmp_path):
    codes, said = two_processes("loop", tmp_path)
    assert codes == [0], said
    first, second = results(tmp_path)
    assert first["masks"][:UPDATES] == second["masks"][:UPDATES]
    assert first["in_training"] == second["in_training"] == UPDATES + 1
    assert first["said"] == second["said"]
    assert "another mask of project.weight" in first["said"][0]
    assert first["said"][1] == ("the ranks are out of step: rank 0 updated its masks at optimizer step 10, rank 1 at "
                                "step 11")


def test_one_process_compares_nothing(first_digits, monkeypatch):
    def unwanted(*_):
        raise AssertionError("compared")

    for name in ("check_same_masks", "digest"):
        monkeypatch.setattr(ranks, name, unwanted)
    sparsity = SparsityCallback(ratio=0.75, pruning_iterations=4, pruning_steps=4)
    classifier(Pointwise()).fit(first_digits, first_digits, batch_size=16, verbose=0,
                                callbacks=[sparsity, SyncBuffers()])
    assert sparsity.pruner.ratio == 0.75


def test_a_digest_tells_one_moved_mark():
    mask = paddle.ones([4, 6, 1, 1], "bool")
    mask[1, 2] = False
    moved = paddle.ones([4, 6, 1, 1], "bool")
    moved[1, 3] = False
    assert ranks.digest(mask) == ranks.digest(mask.clone())
    assert ranks.digest(mask) != ranks.digest(moved)
