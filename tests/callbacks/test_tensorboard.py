import os
import signal
import socket

from helpers import curves, forked

from paddle_sparse_cb import make_plan, measure_sparsity
from paddle_sparse_cb.callbacks.tensorboard import SparsityWriter


def test_tensorboard_reads_the_written_events(network, tmp_path):
    writer = SparsityWriter(tmp_path / "curves")
    writer.scalars(3, {"sparsity/target": 0.75, "train/loss": 1.5})
    writer.layers(3, measure_sparsity(network, make_plan(network)))
    writer.close()
    assert curves(tmp_path / "curves") == {
        "sparsity/target": [(3, 0.75)],
        "train/loss": [(3, 1.5)],
        "sparsity_layer/expand.weight": [(3, 0.0)],
        "sparsity_layer/project.weight": [(3, 0.0)],
    }


def test_a_resumed_training_replaces_the_events_from_its_first_step(tmp_path):
    for purge_step, steps in ((None, (1, 2, 3)), (3, (3, 4)), (None, (5,))):
        writer = SparsityWriter(tmp_path, purge_step)
        for step in steps:
            writer.scalars(step, {"train/loss": 10 * step + (purge_step or 0)})
        writer.close()
    assert curves(tmp_path)["train/loss"] == [(1, 10), (2, 20), (3, 33), (4, 43), (5, 50)]
    assert len(list(tmp_path.iterdir())) == 3


def test_event_files_reveal_neither_host_nor_process(tmp_path):
    SparsityWriter(tmp_path).close()
    [file] = tmp_path.iterdir()
    assert file.name.startswith("events.out.tfevents.")
    assert socket.gethostname() not in file.name
    assert str(os.getpid()) not in file.name.split(".")
    assert socket.gethostname().encode() not in file.read_bytes()


def write_and_be_killed(folder):
    SparsityWriter(folder).scalars(1, {"loss": 2.0})
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_training_loses_no_event(tmp_path):
    process = forked(write_and_be_killed, tmp_path)
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert curves(tmp_path) == {"loss": [(1, 2.0)]}
