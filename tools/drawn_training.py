"""Small trainings that are drawn at random, interrupted at random, resumed, and compared bit by bit."""

from __future__ import annotations

import contextlib
import io
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import paddle
from hypothesis import strategies as st
from paddle import nn

from paddle_sparse_cb import (
    Checkpoints,
    Distillation,
    EMACallback,
    ResumableCallbacks,
    SkipBatchesLoader,
    SparsityCallback,
    find_checkpoint,
)
from paddle_sparse_cb.checkpoints.state import load_state
from paddle_sparse_cb.utils.weight_files import load_arrays

SCHEDULES = {
    "constant": lambda: 0.05,
    "step": lambda: paddle.optimizer.lr.StepDecay(0.05, 2, 0.5),
    "cosine": lambda: paddle.optimizer.lr.CosineAnnealingDecay(0.05, 7),
    "restarts": lambda: paddle.optimizer.lr.CosineAnnealingWarmRestarts(0.05, 3, 2),
    "warmup": lambda: paddle.optimizer.lr.LinearWarmup(
        paddle.optimizer.lr.CosineAnnealingDecay(0.05, 7), 3, 0.001, 0.05
    ),
}
SAVED = ("final.pdparams", "final.pdopt", "final.pdema", "final.pdscaler", "final.pddistill")


@dataclass(frozen=True)
class Training:
    """What a training consists of, and the batches (of all epochs) before which it is interrupted."""

    optimizer: str = "Momentum"
    schedule: str = "constant"
    by_epoch: bool = False
    stepped_outside: bool = False  # hapi's LRScheduler beside ResumableCallbacks and not in it
    sets_rate: bool = False
    accumulate: int = 1
    num_iters: int | None = None
    ema: bool = False
    amp: bool = False
    evaluates: bool = False
    every: int = 1
    every_batches: int | None = 1
    workers: int = 0
    shuffle: bool = True
    samples: int = 20
    distils: bool = False
    labels: bool = True  # of a distillation
    decays: bool = False
    order: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6)
    interrupts: tuple[int, ...] = (3,)
    mixed: bool = False  # each layer has its own ratio and block


def trainings(workers=(0,)):
    """Draws trainings of three epochs."""
    return st.builds(
        Training,
        optimizer=st.sampled_from(("SGD", "Momentum", "Adam", "AdamW")),
        schedule=st.sampled_from(sorted(SCHEDULES)),
        by_epoch=st.booleans(),
        stepped_outside=st.booleans(),
        sets_rate=st.booleans(),
        accumulate=st.integers(1, 3),
        num_iters=st.none() | st.integers(9, 20),
        ema=st.booleans(),
        amp=st.booleans(),
        evaluates=st.booleans(),
        every=st.integers(1, 3),
        every_batches=st.none() | st.integers(1, 4),
        workers=st.sampled_from(workers),
        shuffle=st.booleans(),
        samples=st.integers(17, 26),
        distils=st.booleans(),
        labels=st.booleans(),
        decays=st.booleans(),
        order=st.permutations(range(7)).map(tuple),
        interrupts=st.lists(st.integers(0, 14), min_size=1, max_size=3).map(tuple),
        mixed=st.booleans(),
    )


class Data(paddle.io.Dataset):
    """Vectors with noise, until `end` is called.

    Paddle's thread of an interrupted loader reads ahead, and would draw the random numbers of the next training.
    """

    def __init__(self, size):
        self.size, self.is_over, self.lock = size, False, threading.Lock()

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        with self.lock:
            noise = np.zeros(6) if self.is_over else np.random.rand(6)
        return np.full(6, index / self.size, "float32") + noise.astype("float32"), index % 4

    def end(self):
        with self.lock:
            self.is_over = True


class SetRate(paddle.callbacks.Callback):
    """Halves a constant learning rate after each epoch."""

    def on_epoch_end(self, epoch, logs=None):
        self.model._optimizer.set_lr(self.model._optimizer.get_lr() / 2)


class Interrupt(paddle.callbacks.Callback):
    """Raises before one of all batches that are trained."""

    def __init__(self, batch):
        super().__init__()
        self.left = batch

    def on_train_batch_begin(self, step, logs=None):
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1


def run(training, folder, interrupt=None):
    """Trains from the newest checkpoint of a folder, or from the beginning; returns whether it came to its end."""
    data = [Data(training.samples) for _ in range(1 + training.evaluates)]
    try:
        return _run(training, folder, interrupt, data)
    finally:
        for one in data:
            one.end()


def _run(training, folder, interrupt, data):
    resume = find_checkpoint(folder)
    paddle.seed(17 if resume else 5)
    with paddle.utils.unique_name.guard():
        network = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1D(8), nn.Dropout(0.2), nn.Linear(8, 4))
        model = paddle.Model(network)
        optimizer = getattr(paddle.optimizer, training.optimizer)(
            SCHEDULES[training.schedule](), parameters=network.parameters()
        )
        # A scaler on a CPU scales by 1 unless it is asked to; without a GPU O1 changes nothing else in these layers.
        amp = {"level": "O1", "init_loss_scaling": 8.0, "incr_every_n_steps": 3} if training.amp else None
        model.prepare(optimizer, nn.CrossEntropyLoss(), paddle.metric.Accuracy(), amp_configs=amp)
        loaders = [
            SkipBatchesLoader(
                paddle.io.DataLoader(one, batch_size=4, shuffle=training.shuffle, num_workers=training.workers),
                seed=3,
            )
            for one in data
        ]
        is_constant = training.schedule == "constant"
        stepping = [paddle.callbacks.LRScheduler(by_step=False, by_epoch=True)] if training.by_epoch else []
        outside = training.stepped_outside
        together = [
            SparsityCallback(
                ratio=0.5,
                pruning_iterations=2,
                tunning_iterations=0,
                prune_params_type=None,
                ratios={"0.weight": 0.75} if training.mixed else None,
                blocks={"3.weight": (2, 1)} if training.mixed else None,
            ),
            Checkpoints(folder, training.every, training.every_batches),
            *([EMACallback(0.9)] if training.ema else [paddle.callbacks.Callback()]),
            *(stepping if stepping and not outside else [paddle.callbacks.Callback()]),
            *([SetRate()] if training.sets_rate and is_constant else [paddle.callbacks.Callback()]),
            paddle.callbacks.EarlyStopping("loss", patience=99, save_best_model=False),
            _distillation(training) if training.distils else paddle.callbacks.Callback(),
        ]
        together = [together[place] for place in training.order]
        if interrupt is not None:
            together.append(Interrupt(interrupt))
        evaluation = loaders[1] if training.evaluates else None
        callbacks = [
            ResumableCallbacks(together, loaders[0], evaluation, resume=resume, seed=3),
            *(stepping if outside else []),
        ]
        try:
            with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model.fit(
                    loaders[0],
                    evaluation,
                    epochs=3,
                    verbose=0,
                    callbacks=callbacks,
                    accumulate_grad_batches=training.accumulate,
                    num_iters=training.num_iters,
                )
        except KeyboardInterrupt:
            return False
    return True


def _distillation(training):
    """Returns a distillation with a projection, from a teacher that is the same in each run."""
    teacher = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 4))
    rng = np.random.default_rng(1)
    for parameter in teacher.parameters():
        parameter.set_value(rng.normal(size=parameter.shape).astype("float32"))
    return Distillation(
        teacher,
        features={"0": "1"},
        labels=training.labels,
        warmup_epochs=1,
        decay=training.decays and training.labels,
    )


def differences(training, folder):
    """Trains with and without interruptions and returns what differs in the final files, one line for each."""
    reference, resumed = Path(folder, "reference"), Path(folder, "resumed")
    assert run(training, reference)
    for interrupt in training.interrupts:
        if run(training, resumed, interrupt):
            break
    else:
        run(training, resumed)
    found = [
        f"{file}: {name}"
        for file in SAVED
        if (reference / file).exists() or (resumed / file).exists()
        for name in _differing(load_arrays(reference / file), load_arrays(resumed / file))
    ]
    expected, actual = (load_state(one / "final.pdsparse") for one in (reference, resumed))
    found += [f"masks: {name}" for name in _differing(expected.masks, actual.masks)]
    for key in ("epoch", "batch", "iterations", "learning_rate"):
        if expected.training.get(key) != actual.training.get(key):
            found.append(f"{key}: {expected.training.get(key)} and {actual.training.get(key)}")
    if expected.step != actual.step:
        found.append(f"steps: {expected.step} and {actual.step}")
    return found


def _differing(expected, actual):
    for name in sorted({*expected, *actual}):
        if name not in expected or name not in actual:
            yield f"{name} is missing"
        elif isinstance(expected[name], dict):
            if repr(expected[name]) != repr(actual[name]):
                yield f"{name} {expected[name]} and {actual[name]}"
        elif np.asarray(expected[name]).tobytes() != np.asarray(actual[name]).tobytes():
            yield name
