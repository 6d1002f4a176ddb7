"""Whatever earlier trainings left in a folder, the newest checkpoint found in it is one of the training at hand."""

import subprocess
import sys
from pathlib import Path

import paddle
import pytest
from helpers import classifier

from paddle_sparse_cb import (
    BestCheckpoint,
    Checkpoints,
    InputError,
    ResumableCallbacks,
    ResumeState,
    SkipBatchesLoader,
    find_checkpoint,
)


class Stop(paddle.callbacks.Callback):
    """Ends a training with an error after a number of batches, and notes the checkpoint found by then."""

    def __init__(self, folder, batches):
        super().__init__()
        self.folder, self.batches, self.found = folder, batches, None

    def on_train_batch_end(self, step, logs=None):
        self.batches -= 1
        self.found = find_checkpoint(self.folder)
        if self.batches == 0:
            raise KeyboardInterrupt


def fit(folder, name, epochs, resume=None, stop_after=0):
    """Trains four batches per epoch with a checkpoint after each batch; the checkpoints have the given name."""
    data = paddle.io.TensorDataset([paddle.rand([32, 8]), paddle.randint(0, 4, [32, 1])])
    loader, evaluated = (SkipBatchesLoader(paddle.io.DataLoader(data, batch_size=8)) for _ in range(2))
    callbacks = [BestCheckpoint(folder), Checkpoints(folder, every_batches=1, training={"name": name})]
    stop = Stop(folder, stop_after)
    wrapper = ResumableCallbacks([*callbacks, stop], loader, evaluated, resume=resume)
    with paddle.utils.unique_name.guard():  # as in a process of its own
        model = classifier(paddle.nn.Linear(8, 4))
        try:
            model.fit(loader, evaluated, epochs=epochs, verbose=0, callbacks=[wrapper])
        except KeyboardInterrupt:
            assert stop_after
    return stop.found


def names(folder):
    return {path.stem for path in Path(folder).glob("*.pdsparse")}


def name_of(found):
    return found.state.training["name"]


def test_after_a_new_training_no_checkpoint_of_an_earlier_longer_one_is_found(tmp_path, capsys):
    fit(tmp_path, "first", epochs=3)
    fit(tmp_path, "second", epochs=3, stop_after=1)
    assert find_checkpoint(tmp_path) is None  # stopped before its first checkpoint
    assert f"were moved to {tmp_path / 'earlier.1'}" in capsys.readouterr().out
    assert names(tmp_path / "earlier.1") == {"0", "1", "2", "final", "best_model"}
    fit(tmp_path, "third", epochs=3, stop_after=2)
    found = find_checkpoint(tmp_path)
    assert (found.path.name, name_of(found)) == ("0_1.pdsparse", "third")
    fit(tmp_path, "fourth", epochs=1)
    assert {name_of(ResumeState.open(path)) for path in tmp_path.glob("[0-9f]*.pdsparse")} == {"fourth"}
    assert name_of(find_checkpoint(tmp_path / "earlier.1")) == "first"


def test_resuming_from_an_earlier_checkpoint_sets_later_ones_aside(tmp_path):
    fit(tmp_path, "first", epochs=4)
    found = fit(tmp_path, "branch", epochs=4, resume=ResumeState.open(tmp_path / "1.pdsparse"), stop_after=2)
    assert (found.path.name, name_of(found)) == ("2_1.pdsparse", "branch")
    assert names(tmp_path / "earlier.1") >= {"2", "3", "final"}


def test_resuming_from_the_newest_checkpoint_moves_nothing(tmp_path):
    fit(tmp_path, "first", epochs=2)
    fit(tmp_path, "first", epochs=3, resume=find_checkpoint(tmp_path))
    assert not list(tmp_path.glob("earlier.*"))
    assert {"0", "1", "2", "final"} <= names(tmp_path)


def test_resuming_from_another_folder_does_not_mix_with_the_checkpoints_of_this_one(tmp_path):
    fit(tmp_path / "here", "here", epochs=4)
    fit(tmp_path / "there", "there", epochs=2)
    found = fit(tmp_path / "here", "resumed", 4, find_checkpoint(tmp_path / "there"), stop_after=2)
    assert (found.path.name, name_of(found)) == ("2_1.pdsparse", "resumed")


TRAIN = """
import sys, paddle
from paddle_sparse_cb import Checkpoints
class Wait(paddle.callbacks.Callback):
    def on_train_batch_begin(self, step, logs=None):
        print("training", flush=True)
        sys.stdin.read()
network = paddle.nn.Linear(8, 4)
model = paddle.Model(network)
model.prepare(paddle.optimizer.SGD(0.1, parameters=network.parameters()), paddle.nn.CrossEntropyLoss())
data = paddle.io.TensorDataset([paddle.rand([32, 8]), paddle.randint(0, 4, [32, 1])])
model.fit(data, batch_size=8, verbose=0, callbacks=[Checkpoints(sys.argv[1]), Wait()])
"""


def test_a_second_training_in_the_folder_is_an_error_until_the_first_one_is_killed(tmp_path):
    first = subprocess.Popen(
        [sys.executable, "-c", TRAIN, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert first.stdout.readline() == "training\n"
        with pytest.raises(InputError, match=rf"{tmp_path} is in use by process {first.pid} on "):
            fit(tmp_path, "second", epochs=1)
    finally:
        first.kill()
        first.communicate()
    fit(tmp_path, "second", epochs=1)
    fit(tmp_path, "third", epochs=1)  # a training that has ended holds no lock
