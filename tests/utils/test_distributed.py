"""Two processes and two nodes train one network with the same masks, or stop with an error."""

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
from rank_training import MASK_UPDATES, STEPS

from paddle_sparse_cb import SparsityCallback
from paddle_sparse_cb.callbacks.sync_buffers import SyncBuffers
from paddle_sparse_cb.utils import distributed
from paddle_sparse_cb.utils.weight_files import load_arrays

TESTS = Path(__file__).parent.parent
RUNNING_STATISTICS = ("_mean", "_variance")
TIMEOUT = 300  # seconds for a training of about ten; Paddle itself ends a rank that waits in vain after half an hour


def launches(name):
    """Marks the tests that share one launch: they stay in one worker of pytest-xdist."""
    return lambda test: pytest.mark.slow(pytest.mark.xdist_group(name)(test))


launches_two_processes, launches_two_nodes = launches("two processes"), launches("two nodes")


def start(modes, folder, *options):
    """Starts a launcher in its own process group, so that its ranks can be killed with it."""
    path = os.pathsep.join([str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "paddle.distributed.launch",
            *options,
            str(TESTS / "rank_training.py"),
            modes,
            str(folder),
        ],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def finish(launchers, logs):
    """Waits for the launchers; returns their exit codes and the log of each rank."""
    try:
        codes = [launcher.wait(TIMEOUT) for launcher in launchers]
    finally:
        for launcher in launchers:
            if launcher.poll() is None:
                os.killpg(launcher.pid, signal.SIGKILL)
    return codes, [path.read_text() for folder in logs for path in sorted(folder.glob("workerlog.*"))]


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """Exit codes, logs and folder of two ranks that train with hapi, in a loop, and with another mask on one rank."""
    folder = tmp_path_factory.mktemp("two_processes")
    launcher = start("fit,loop,perturb", folder, "--nproc_per_node", "2", "--log_dir", "logs")
    return *finish([launcher], [folder / "logs"]), folder


@pytest.fixture(scope="module")
def two_nodes(tmp_path_factory):
    """The same of two nodes, without the loop."""
    folder = tmp_path_factory.mktemp("two_nodes")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    logs = [folder / f"node{node}" for node in range(2)]
    options = ("--nnodes", "2", "--nproc_per_node", "1", "--master", f"127.0.0.1:{port}")
    launchers = [
        start("plain,perturb", folder, *options, "--rank", str(node), "--log_dir", str(log))
        for node, log in enumerate(logs)
    ]
    return *finish(launchers, logs), folder


def results(folder, mode, logs):
    files = [folder / f"{mode}{rank}.json" for rank in range(2)]
    assert all(file.exists() for file in files), logs
    return [json.loads(file.read_text()) for file in files]


def assert_same_training_on_both_ranks(first, second):
    assert first["initial"] == second["initial"]  # although each rank is seeded with its number
    assert len(first["masks"]) == STEPS
    assert first["masks"] == second["masks"]
    assert len({tuple(masks) for masks in first["masks"]}) == MASK_UPDATES + 1  # they did change
    for name, values in first["final"].items():  # running statistics differ between ranks until an evaluation
        assert (values == second["final"][name]) == (bool(first["evaluated"]) or not name.endswith(RUNNING_STATISTICS))
    # One gather per mask update and none in between; an evaluation gathers the outputs and labels of each batch, and a
    # distillation the digests of the teachers.
    batches = STEPS if first["evaluated"] else 0
    gathers = MASK_UPDATES + 1 + 2 * batches + bool(first["projections"])
    assert first["gather_count"] == second["gather_count"] == gathers


def assert_the_error_names_the_layer(codes, logs, folder):
    assert all(code != 0 for code in codes)
    for text in logs:
        assert re.search(
            r"RankMismatchError: the masks of the ranks differ: at optimizer step 4 rank 1 has another "
            r"mask of project\.weight than rank 0",
            text,
        ), text
    assert len(logs) == 2
    assert not list(folder.glob("perturb*.json"))


@launches_two_processes
def test_two_ranks_train_evaluate_and_save_the_same_network(two_processes):
    _, logs, folder = two_processes
    first, second = results(folder, "fit", logs)
    assert_same_training_on_both_ranks(first, second)
    assert first["evaluated"] == second["evaluated"]  # running statistics included
    assert first["projections"] == second["projections"]  # although the features differ
    assert len({str(seen) for seen in first["projections"]}) == STEPS
    saved = load_arrays(folder / "checkpoints" / "0.pdparams")
    for name, values in first["evaluated"][0].items():
        np.testing.assert_array_equal(saved[name].ravel(), np.float32(values))


@launches_two_processes
def test_ranks_compare_masks_in_a_training_loop_without_hapi(two_processes):
    _, logs, folder = two_processes
    first, second = results(folder, "loop", logs)
    assert first["masks"][:MASK_UPDATES] == second["masks"][:MASK_UPDATES]
    assert first["gather_count_in_training"] == second["gather_count_in_training"] == MASK_UPDATES + 1
    assert first["errors"] == second["errors"]
    assert "another mask of project.weight" in first["errors"][0]
    assert first["errors"][1] == (
        "the ranks are out of step: rank 0 updated its masks at optimizer step 10, rank 1 at step 11"
    )
    assert first["errors"][2] == "the ranks have different teachers: that of rank 1 is not that of rank 0"


@launches_two_processes
def test_a_rank_with_another_mask_stops_all_ranks_and_the_error_names_the_layer(two_processes):
    assert_the_error_names_the_layer(*two_processes)


@launches_two_nodes
def test_two_nodes_train_the_same_network(two_nodes):
    _, logs, folder = two_nodes
    assert_same_training_on_both_ranks(*results(folder, "plain", logs))


@launches_two_nodes
def test_a_rank_with_another_mask_stops_all_nodes_and_the_error_names_the_layer(two_nodes):
    assert_the_error_names_the_layer(*two_nodes)


def test_a_single_process_compares_no_masks(first_digits, monkeypatch):
    def fail(*_):
        raise AssertionError("masks were compared")

    for name in ("check_same_masks", "digest"):
        monkeypatch.setattr(distributed, name, fail)
    sparsity = SparsityCallback(ratio=0.75, pruning_iterations=4, pruning_steps=4)
    classifier(Pointwise()).fit(
        first_digits, first_digits, batch_size=16, verbose=0, callbacks=[sparsity, SyncBuffers()]
    )
    assert sparsity.pruner.ratio == 0.75


def test_the_digest_changes_when_one_mask_entry_moves():
    mask = paddle.ones([4, 6, 1, 1], "bool")
    mask[1, 2] = False
    moved = paddle.ones([4, 6, 1, 1], "bool")
    moved[1, 3] = False
    assert distributed.digest(mask) == distributed.digest(mask.clone())
    assert distributed.digest(mask) != distributed.digest(moved)
