"""An interrupted training resumes from any position and ends bit for bit as an uninterrupted one."""

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


class WithDropout(Pointwise):
    """Draws random numbers in its forward pass."""

    def forward(self, x):
        return super().forward(nn.functional.dropout(x, 0.2, training=self.training))


class Events(paddle.callbacks.Callback):
    """Records the events that a callback receives."""

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


class RecordLosses(paddle.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_end(self, step, logs=None):
        self.seen.append(logs["loss"][0])


class InterruptBefore(paddle.callbacks.Callback):
    """Raises `InterruptedError` before a batch."""

    def __init__(self, epoch, step):
        super().__init__()
        self.epoch, self.step, self.current_epoch = epoch, step, None

    def on_epoch_begin(self, epoch, logs=None):
        self.current_epoch = epoch

    def on_train_batch_begin(self, step, logs=None):
        if (self.current_epoch, step) == (self.epoch, self.step):
            raise InterruptedError


def train(digits, folder, checkpoint=None, interrupt=None, workers=0, epochs=EPOCHS):
    """Trains from the beginning or from a checkpoint, with other start weights when resuming.

    Returns:
        The pruner, None if the training was interrupted, and the losses of the batches.
    """
    loader = SkipBatchesLoader(paddle.io.DataLoader(digits, batch_size=40, shuffle=True, num_workers=workers), seed=3)
    losses = RecordLosses()
    sparsity = SparsityCallback(ratio=0.75, stable_epochs=1, pruning_epochs=2, tunning_epochs=1, pruning_steps=5)
    with paddle.utils.unique_name.guard():
        paddle.seed(5 if checkpoint is None else 17)
        rate = paddle.optimizer.lr.CosineAnnealingDecay(0.05, EPOCHS * BATCHES)
        model = classifier(WithDropout(), learning_rate=rate)
        callbacks = [
            losses,
            EMACallback(0.9),
            Checkpoints(folder, every_batches=1),
            sparsity,
            *([InterruptBefore(*interrupt)] if interrupt else []),
        ]
        try:
            model.fit(
                loader,
                epochs=epochs,
                verbose=0,
                callbacks=[ResumableCallbacks(callbacks, loader, resume=checkpoint, seed=3)],
            )
        except InterruptedError:
            return None, losses.seen
    return sparsity.pruner, losses.seen


@pytest.fixture(scope="module")
def uninterrupted(first_digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    return folder, *train(first_digits, folder)


@pytest.mark.parametrize("interrupt", [(0, 2), (1, 0), (1, 3), (2, 2), (3, 0), (3, 3)])
def test_an_interrupted_training_resumes_bit_for_bit(uninterrupted, first_digits, tmp_path, interrupt):
    reference, pruner, losses = uninterrupted
    _, before = train(first_digits, tmp_path, interrupt=interrupt)
    checkpoint = find_checkpoint(tmp_path)
    epoch, batch = interrupt
    assert checkpoint.path.stem == (f"{epoch}_{batch}" if batch else str(epoch - 1))
    resumed, after = train(first_digits, tmp_path, checkpoint)
    assert before + after == losses
    assert resumed.cur_iteration == pruner.cur_iteration == EPOCHS * BATCHES
    for suffix in ("pdparams", "pdopt"):
        actual = load_arrays(tmp_path / f"final.{suffix}")
        for name, array in load_arrays(reference / f"final.{suffix}").items():
            assert repr(array) == repr(actual[name]) if name == "LR_Scheduler" else (array == actual[name]).all(), name
    assert resumed.masks.keys() == pruner.masks.keys()
    for name, mask in pruner.masks.items():
        np.testing.assert_array_equal(mask.numpy(), resumed.masks[name].numpy())


class Noisy(paddle.io.Dataset):
    """Arrays with noise that the worker process draws."""

    def __len__(self):
        return 160

    def __getitem__(self, index):
        return np.full([1, 8, 8], index / 160, "float32") + np.random.rand(1, 8, 8).astype("float32"), index % 10


def test_an_interrupted_training_with_data_workers_resumes_bit_for_bit(tmp_path):
    _, losses = train(Noisy(), tmp_path / "uninterrupted", workers=2)
    _, before = train(Noisy(), tmp_path, interrupt=(2, 2), workers=2)
    _, after = train(Noisy(), tmp_path, find_checkpoint(tmp_path), workers=2)
    assert before + after == losses


def test_resuming_a_complete_training_trains_no_batch_and_writes_the_final_files(uninterrupted, first_digits, tmp_path):
    reference, pruner, _ = uninterrupted
    (tmp_path / "3_2.pdopt").write_bytes(b"left by a process killed right after it saved the epoch's checkpoint")
    resumed, losses = train(first_digits, tmp_path, reference / "3.pdsparse")
    assert not list(tmp_path.glob("3_2.*"))
    assert losses == []
    assert resumed.sparsity() == pruner.sparsity() == pytest.approx(0.75)
    for suffix in ("pdparams", "pdopt"):
        expected = load_arrays(reference / f"final.{suffix}")
        assert expected.keys() == load_arrays(tmp_path / f"final.{suffix}").keys()


@pytest.mark.parametrize(
    ("position", "every", "expected"),
    [
        (
            TrainingPosition(),
            1,
            "epoch 0,batch 0,batch 1,end 0,evaluation,evaluated True,"
            "epoch 1,batch 0,batch 1,end 1,evaluation,evaluated True,"
            "epoch 2,batch 0,batch 1,end 2,evaluation,evaluated True",
        ),
        (
            TrainingPosition(),
            2,
            "epoch 0,batch 0,batch 1,end 0,epoch 1,batch 0,batch 1,end 1,evaluation,evaluated True,"
            "epoch 2,batch 0,batch 1,end 2,evaluation,evaluated True",
        ),
        (
            TrainingPosition(1, 1),
            1,
            "epoch 1,batch 1,end 1,evaluation,evaluated True,epoch 2,batch 0,batch 1,end 2,evaluation,evaluated True",
        ),
        (
            TrainingPosition(1, 2),
            1,
            "evaluation,evaluated True,epoch 2,batch 0,batch 1,end 2,evaluation,evaluated True",
        ),
        (
            TrainingPosition(0, 2),
            2,
            "epoch 1,batch 0,batch 1,end 1,evaluation,evaluated True,"
            "epoch 2,batch 0,batch 1,end 2,evaluation,evaluated True",
        ),
        (TrainingPosition(2, 2), 1, "evaluation,evaluated True"),
    ],
)
def test_a_resumed_training_calls_callbacks_for_the_remaining_batches_only(
    first_digits, tmp_path, position, every, expected
):
    loader, eval_loader = (SkipBatchesLoader(paddle.io.DataLoader(first_digits, batch_size=80)) for _ in range(2))
    events = Events()
    with paddle.utils.unique_name.guard():
        model = classifier(WithDropout())
        model.fit(loader, epochs=1, verbose=0, callbacks=[Checkpoints(tmp_path)])
    resume = None
    if position != TrainingPosition():
        resume = find_checkpoint(tmp_path)
        resume.position = position
    model.fit(
        loader,
        eval_loader,
        epochs=3,
        verbose=0,
        callbacks=[ResumableCallbacks([events], loader, eval_loader, every, resume=resume)],
    )
    assert ",".join(events.seen) == expected


def test_a_loader_without_set_epoch_is_an_input_error(first_digits):
    with pytest.raises(
        InputError,
        match=r"train must be a loader with a method set_epoch\(epoch, first_batch\), such "
        "as SkipBatchesLoader",
    ):
        ResumableCallbacks([], paddle.io.DataLoader(first_digits))


class PaddleNoise(Noisy):
    """Arrays with noise of Paddle."""

    def __getitem__(self, index):
        return paddle.rand([1, 8, 8]).numpy(), index % 10


def test_data_that_draw_paddles_random_numbers_are_refused_without_a_worker(tmp_path):
    with pytest.raises(InputError, match="PaddleNoise draws Paddle's random numbers .* give num_workers=1"):
        train(PaddleNoise(), tmp_path)


def test_data_that_draw_paddles_random_numbers_in_a_worker_resume_bit_for_bit(tmp_path):
    _, losses = train(PaddleNoise(), tmp_path / "uninterrupted", workers=1)
    _, before = train(PaddleNoise(), tmp_path, interrupt=(1, 2), workers=1)
    _, after = train(PaddleNoise(), tmp_path, find_checkpoint(tmp_path), workers=1)
    assert before + after == losses


def test_persistent_workers_are_an_input_error(first_digits):
    loader = paddle.io.DataLoader(first_digits, num_workers=1, persistent_workers=True)
    with pytest.raises(InputError, match="persistent_workers must be False, got True"):
        SkipBatchesLoader(loader)


def test_resuming_an_ema_checkpoint_without_ema_is_an_input_error(uninterrupted, first_digits):
    checkpoint = uninterrupted[0] / "1.pdsparse"
    loader = SkipBatchesLoader(paddle.io.DataLoader(first_digits, batch_size=40, shuffle=True), seed=3)
    sparsity = SparsityCallback(ratio=0.75, stable_epochs=1, pruning_epochs=2, tunning_epochs=1, pruning_steps=5)
    with paddle.utils.unique_name.guard():
        rate = paddle.optimizer.lr.CosineAnnealingDecay(0.05, EPOCHS * BATCHES)
        model = classifier(WithDropout(), learning_rate=rate)
        with pytest.raises(InputError, match=r"1\.pdsparse: the checkpoint used an EMACallback, and this run has none"):
            model.fit(
                loader, epochs=4, verbose=0, callbacks=[ResumableCallbacks([sparsity], loader, resume=checkpoint)]
            )


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"decay": 0.99}, "decay is 0.9 in the checkpoint and 0.99 in this run"),
        ({"decay": 0.9, "black_list": ["stem"]}, "black_list is"),
    ],
)
def test_resuming_with_other_ema_settings_is_an_input_error(uninterrupted, first_digits, keywords, message):
    model = classifier(WithDropout())
    with pytest.raises(InputError, match=message):
        model.fit(
            first_digits,
            epochs=1,
            batch_size=40,
            verbose=0,
            callbacks=[EMACallback(resume=uninterrupted[0] / "1.pdsparse", **keywords)],
        )
