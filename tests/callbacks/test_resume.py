"""A training that goes on from any place ends as the one that was never stopped."""

import numpy as np
import paddle
import pytest
from helpers import Pointwise, classifier
from paddle import nn

from paddle_sparse_cb import (
    Checkpoints,
    EMACallback,
    InputError,
    ResumableCallbacks,
    SkipBatchesLoader,
    SparsityCallback,
    TrainingPosition,
    find_checkpoint,
)
from paddle_sparse_cb.utils.weight_files import load_arrays

EPOCHS, BATCHES = 4, 4


class Dropping(Pointwise):
    """Draws random numbers in its forward."""

    def forward(self, x):
        return super().forward(nn.functional.dropout(x, 0.2, training=self.training))


class Events(paddle.callbacks.Callback):
    """Notes what it is told."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_epoch_begin(self, epoch, logs=None):
        self.seen.append(f"epoch {epoch}")

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(f"end {epoch}")

    def on_train_batch_begin(self, step, logs=None):
        self.seen.append(f"batch {step}")

    def on_eval_begin(self, logs=None):
        self.seen.append("evaluation")

    def on_eval_end(self, logs=None):
        self.seen.append(f"evaluated {'acc' in logs}")


class Losses(paddle.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_end(self, step, logs=None):
        self.seen.append(logs["loss"][0])


class Stop(paddle.callbacks.Callback):
    """A power cut before a batch."""

    def __init__(self, epoch, step):
        super().__init__()
        self.epoch, self.step, self.now = epoch, step, None

    def on_epoch_begin(self, epoch, logs=None):
        self.now = epoch

    def on_train_batch_begin(self, step, logs=None):
        if (self.now, step) == (self.epoch, self.step):
            raise InterruptedError


def train(digits, folder, checkpoint=None, stop=None, workers=0, epochs=EPOCHS):
    """Trains, or goes on; every fit begins with other weights and names as in a process of its own."""
    loader = SkipBatchesLoader(paddle.io.DataLoader(digits, batch_size=40, shuffle=True, num_workers=workers), seed=3)
    losses = Losses()
    sparsity = SparsityCallback(ratio=0.75, stable_epochs=1, pruning_epochs=2, tunning_epochs=1, pruning_steps=5)
    with paddle.utils.unique_name.guard():
        paddle.seed(5 if checkpoint is None else 17)
        rate = paddle.optimizer.lr.CosineAnnealingDecay(0.05, EPOCHS * BATCHES)
        model = classifier(Dropping(), learning_rate=rate)
        callbacks = [losses, EMACallback(0.9), Checkpoints(folder, every_batches=1), sparsity,
                     *([Stop(*stop)] if stop else [])]
        try:
            model.fit(loader, epochs=epochs, verbose=0,
                      callbacks=[ResumableCallbacks(callbacks, loader, resume=checkpoint, seed=3)])
        except InterruptedError:
            return None, losses.seen
    return sparsity.pruner, losses.seen


@pytest.fixture(scope="module")
def whole(first_digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, *train(first_digits, folder)


@pytest.mark.parametrize("stop", [(0, 2), (1, 0), (1, 3), (2, 2), (3, 0), (3, 3)])
def test_it_ends_bit_for_bit_as_the_whole_one(whole, first_digits, tmp_path, stop):
    reference, pruner, losses = whole
    _, before = train(first_digits, tmp_path, stop=stop)
    checkpoint = find_checkpoint(tmp_path)
    assert checkpoint.path.stem == (f"{stop[0]}_{stop[1]}" if stop[1] else str(stop[0] - 1))
    resumed, after = train(first_digits, tmp_path, checkpoint)
    assert before + after == losses
    assert resumed.cur_iteration == pruner.cur_iteration == EPOCHS * BATCHES
    for ending in ("pdparams", "pdopt"):
        theirs = load_arrays(tmp_path / f"final.{ending}")
        for name, array in load_arrays(reference / f"final.{ending}").items():
            assert repr(array) == repr(theirs[name]) if name == "LR_Scheduler" else (array == theirs[name]).all(), name
    for mask, other in zip(pruner.masks.values(), resumed.masks.values()):
        np.testing.assert_array_equal(mask.numpy(), other.numpy())


class Drawn(paddle.io.Dataset):
    """Arrays, which a worker process may touch, with noise that it draws."""

    def __len__(self):
        return 160

    def __getitem__(self, index):
        return np.full([1, 8, 8], index / 160, "float32") + np.random.rand(1, 8, 8).astype("float32"), index % 10


def test_worker_processes_do_as_well(tmp_path):
    _, losses = train(Drawn(), tmp_path / "whole", workers=2)
    _, before = train(Drawn(), tmp_path, stop=(2, 2), workers=2)
    _, after = train(Drawn(), tmp_path, find_checkpoint(tmp_path), workers=2)
    assert before + after == losses


def test_a_training_that_was_done_is_only_finished(whole, first_digits, tmp_path):
    reference, pruner, _ = whole
    (tmp_path / "3_2.pdopt").write_bytes(b"left by a kill after the epoch's own were saved")
    again, after = train(first_digits, tmp_path, reference / "3.pdsparse")
    assert not list(tmp_path.glob("3_2.*"))
    assert after == []
    assert again.sparsity() == pruner.sparsity() == pytest.approx(0.75)
    for ending in ("pdparams", "pdopt"):
        whole_one = load_arrays(reference / f"final.{ending}")
        assert whole_one.keys() == load_arrays(tmp_path / f"final.{ending}").keys()


@pytest.mark.parametrize(("place", "every", "expected"), [
    (TrainingPosition(), 1, "epoch 0,batch 0,batch 1,end 0,evaluation,evaluated True,"
                 "epoch 1,batch 0,batch 1,end 1,evaluation,evaluated True,"
                 "epoch 2,batch 0,batch 1,end 2,evaluation,evaluated True"),
    (TrainingPosition(), 2, "epoch 0,batch 0,batch 1,end 0,epoch 1,batch 0,batch 1,end 1,evaluation,evaluated True,"
                 "epoch 2,batch 0,batch 1,end 2,evaluation,evaluated True"),
    (TrainingPosition(1, 1), 1, "epoch 1,batch 1,end 1,evaluation,evaluated True,"
                     "epoch 2,batch 0,batch 1,end 2,evaluation,evaluated True"),
    (TrainingPosition(1, 2), 1, "evaluation,evaluated True,epoch 2,batch 0,batch 1,end 2,evaluation,evaluated True"),
    (TrainingPosition(0, 2), 2, "epoch 1,batch 0,batch 1,end 1,evaluation,evaluated True,"
                     "epoch 2,batch 0,batch 1,end 2,evaluation,evaluated True"),
    (TrainingPosition(2, 2), 1, "evaluation,evaluated True"),
])
def test_callbacks_see_what_is_left(first_digits, tmp_path, place, every, expected):
    loader, evaluation = (SkipBatchesLoader(paddle.io.DataLoader(first_digits, batch_size=80)) for _ in range(2))
    events = Events()
    with paddle.utils.unique_name.guard():
        model = classifier(Dropping())
        model.fit(loader, epochs=1, verbose=0, callbacks=[Checkpoints(tmp_path)])
    resume = None
    if place != TrainingPosition():
        resume = find_checkpoint(tmp_path)
        resume.position = place
    model.fit(loader, evaluation, epochs=3, verbose=0,
              callbacks=[ResumableCallbacks([events], loader, evaluation, every, resume=resume)])
    assert ",".join(events.seen) == expected


def test_a_loader_that_cannot_be_told_is_an_error(first_digits):
    with pytest.raises(InputError, match=r"train must be a loader with a method set_epoch\(epoch, first_batch\), such as SkipBatchesLoader"):
        ResumableCallbacks([], paddle.io.DataLoader(first_digits))


def test_averages_must_go_on_as_such(whole, first_digits):
    checkpoint = whole[0] / "1.pdsparse"
    loader = SkipBatchesLoader(paddle.io.DataLoader(first_digits, batch_size=40))
    sparsity = SparsityCallback(ratio=0.75, stable_epochs=1, pruning_epochs=2, tunning_epochs=1, pruning_steps=5)
    with paddle.utils.unique_name.guard():
        rate = paddle.optimizer.lr.CosineAnnealingDecay(0.05, EPOCHS * BATCHES)
        model = classifier(Dropping(), learning_rate=rate)
        with pytest.raises(InputError, match=r"1\.pdsparse: the checkpoint used an EMACallback, and this run has none"):
            model.fit(loader, epochs=4, verbose=0, callbacks=[ResumableCallbacks([sparsity], loader, resume=checkpoint)])


@pytest.mark.parametrize(("keywords", "said"), [
    ({"decay": 0.99}, "decay is 0.9 in the checkpoint and 0.99 in this run"),
    ({"decay": 0.9, "black_list": ["stem"]}, "black_list is"),
])
def test_another_average_is_refused(whole, first_digits, keywords, said):
    model = classifier(Dropping())
    with pytest.raises(InputError, match=said):
        model.fit(first_digits, epochs=1, batch_size=40, verbose=0,
                  callbacks=[EMACallback(resume=whole[0] / "1.pdsparse", **keywords)])
