"""Checkpoints of `paddle.Model`, each whole or not there: all that a training needs to go on as if never stopped."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from ..callbacks.resume import TrainingPosition
from ..errors import InputError
from ..pruning.optimizer_hook import get_attached_ema, get_attached_pruner
from ..utils.distributed import is_rank_zero
from ..utils.files import atomic_replace
from ..utils.finite import check_finite
from ..utils.weight_files import load_arrays
from .state import PruningState, check_same, file_digest, load_state, load_verified, save_state

_SCRATCH = ".saving-"
_EPOCH = re.compile(r"(\d+)(?:_(\d+))?\.pd(?:sparse|params)")  # of an epoch, or of so many batches of one


class Checkpoints(paddle.callbacks.Callback):
    """Saves `<epoch>` every so many epochs and after the last one, `<epoch>_<batches>` between, and `final` at the end.

    A checkpoint is `.pdparams` and `.pdopt` as hapi writes them (`.pdscaler` too, under mixed precision), `.pdema`
    where an `EMACallback` averages, and `.pdsparse`, which comes last and names the digests of the others: masks, step
    and place of the training. What an epoch's checkpoint holds is what is left after its last batch; an evaluation
    that follows is not over yet.

    hapi's own `ModelCheckpoint` writes in place, so that a kill or a full disk leaves half a file under a good name.

    Args:
        folder: where the files go.
        every: epochs between two checkpoints.
        every_batches: batches between two checkpoints within an epoch, of which the last one is kept; None saves none.
        training: plain values to keep in the state.
        place: where the training goes on from an earlier one.
    """

    def __init__(self, folder: str | os.PathLike[str], every: int = 1, every_batches: int | None = None,
                 training: dict[str, Any] | None = None, place: TrainingPosition | None = None) -> None:
        super().__init__()
        self.folder = Path(folder)
        self.every, self.every_batches = every, every_batches
        self.training, self.place = training or {}, place or TrainingPosition()

    def on_train_begin(self, logs: Any = None) -> None:
        """Clears away what a kill left half written."""
        if is_rank_zero():
            for scratch in [*self.folder.glob(f"{_SCRATCH}*"), *self.folder.glob(".*.pdsparse.*")]:
                shutil.rmtree(scratch)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Notes the epoch."""
        self.place = TrainingPosition(epoch)

    def on_train_batch_begin(self, step: int, logs: Any = None) -> None:
        """Saves what the batch before has left, if it is time: here the learning rate has moved on too."""
        self.place = replace(self.place, batch=step)
        if self.every_batches and step and step % self.every_batches == 0:
            self.save_place()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Saves the epoch, if it is one to save."""
        self.place = TrainingPosition(epoch, self.params["steps"] or 0)
        if (epoch + 1) % self.every == 0 or epoch + 1 == self.params["epochs"]:
            self.save_place()

    def on_train_end(self, logs: Any = None) -> None:
        """Saves `final`."""
        self.save("final")
        self._remove_within_epochs()  # a kill may have come before it was done

    def save_place(self) -> Path:
        """Saves where the training is; checkpoints within an epoch that came before are removed after that.

        Returns:
            The `.pdsparse` file.
        """
        epoch, batch = self.place.epoch, self.place.batch
        name = str(epoch) if batch == (self.params["steps"] or 0) else f"{epoch}_{batch}"
        self.save(name)
        self._remove_within_epochs(name)
        return self.folder / f"{name}.pdsparse"

    def _remove_within_epochs(self, but: str = "") -> None:
        if is_rank_zero():
            for file in self.folder.glob("*_*.pd*"):
                if _EPOCH.fullmatch(f"{file.stem}.pdsparse") and file.stem != but:
                    file.unlink()

    def save(self, name: str, **more: Any) -> None:
        """Saves the network and the training's state under a name, on rank 0.

        Args:
            name: of the files, without an ending.
            more: plain values to keep in the state.

        Raises:
            PipelineError: the network is not finite; the checkpoints before stay.
            OSError: there is no room, for example; they stay too.
        """
        if not is_rank_zero():
            return
        check_finite(self.model.network, f"{self.folder / name} is not saved")
        try:
            self._write(name, more)
        except OSError as error:
            error.filename = error.filename or str(self.folder / name)
            raise

    def _write(self, name: str, more: dict[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        average = get_attached_ema(self.model)
        with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=self.folder) as scratch:
            self.model.save(str(Path(scratch, name)))
            _complete(self.model._optimizer, Path(scratch, f"{name}.pdopt"))
            if average:
                paddle.save(average.arrays(), str(Path(scratch, f"{name}.pdema")))
            files = sorted(Path(scratch).iterdir())
            digests = {file.name: file_digest(file) for file in files}
            for file in files:  # the others before .pdparams: with it, all is there
                atomic_replace(file, self.folder / file.name)
        training = {**self.training, "epoch": self.place.epoch, "batch": self.place.batch, "batches":
                    (getattr(self, "params", None) or {}).get("steps"), "ranks": paddle.distributed.get_world_size(),
                    "ema": average.settings() if average else None, **more}
        pruner = get_attached_pruner(self.model._optimizer) if self.model._optimizer else None
        state = replace(pruner.state() if pruner else PruningState(0, {}, {}), training=training, files=digests)
        save_state(state, self.folder / f"{name}.pdsparse")  # last: it says what the others have to be


def _complete(optimizer: Any, file: Path) -> None:
    """Adds what was loaded and no step has taken up yet, which Paddle 2.6 leaves out of an optimizer's state."""
    waiting = getattr(optimizer, "_accumulators_holder", None)
    if waiting:
        paddle.save({**waiting, **optimizer.state_dict()}, str(file))


def last_checkpoint(folder: str | os.PathLike[str], say: Callable[[str], Any] = warnings.warn) -> Path | None:
    """The newest checkpoint of a training that is whole.

    Args:
        folder: of `Checkpoints`.
        say: is told in a line of each newer one that is half written or damaged.

    Returns:
        Its `.pdsparse` file; None where there is none.
    """
    places = {file.stem: (int(found[1]), found[2] is None, int(found[2] or 0))
              for file in Path(folder).glob("*.pd*") if (found := _EPOCH.fullmatch(file.name))}
    for name in sorted(places, key=places.__getitem__, reverse=True):
        path = Path(folder, f"{name}.pdsparse")
        try:
            load_verified(path)
            return path
        except InputError as error:
            rank_zero_info(f"not used: {error}")
    return None


def read_position(path: str | os.PathLike[str] | None) -> TrainingPosition:
    """Where a training was when a checkpoint was saved.

    Args:
        path: the `.pdsparse` file; None is the begin.

    Raises:
        InputError: it is missing or damaged, or does not say.
    """
    if path is None:
        return TrainingPosition()
    training = load_state(path).training
    epoch, batch = training.get("epoch"), training.get("batch")
    if type(epoch) is not int or type(batch) is not int or min(epoch, batch) < 0:
        raise InputError(f"{path}: does not say where its training was")
    return TrainingPosition(epoch, batch)


def load_checkpoint(model: paddle.Model, path: str | os.PathLike[str], batches: int | None = None,
                    changed: bool = False) -> PruningState:
    """Puts a checkpoint's network, optimizer with its learning rate, and loss scaling into a prepared model.

    Args:
        model: made in the same order as the one that was saved, in this process: Paddle's optimizers go by names that
            it gives out one after another.
        path: the `.pdsparse` file.
        batches: of an epoch of the training that goes on; None if not known.
        changed: epochs may have other lengths than that of the checkpoint, or there may be other processes. Steps are
            then counted as if the epochs before had been so long as those that follow.

    Returns:
        The state in it.

    Raises:
        InputError: a file is missing, damaged or of another time, or is of another network, optimizer or training.
    """
    path = Path(path)
    state = load_verified(path)
    before, ranks = state.training.get("batches"), paddle.distributed.get_world_size()
    if not changed:
        check_same({key: state.training.get(key) for key in ("batches", "ranks")},
                     {"batches": batches, "ranks": ranks}, path)
    _load_network(model.network, path.with_suffix(".pdparams"))
    if f"{path.stem}.pdopt" in state.files and model._optimizer is not None:
        _load_optimizer(model, path.with_suffix(".pdopt"))
    if f"{path.stem}.pdscaler" in state.files and getattr(model, "_scaler", None) is not None:
        model._scaler.load_state_dict(load_arrays(path.with_suffix(".pdscaler")))
    if batches and before and batches != before:
        rate = getattr(model._optimizer, "_learning_rate", None)
        if isinstance(rate, paddle.optimizer.lr.LRScheduler):
            rate.step(round(rate.last_epoch * batches / before))
        state = replace(state, step=round(state.step * batches / before))
    return state


def _load_network(network: paddle.nn.Layer, file: Path) -> None:
    theirs, mine = load_arrays(file), network.state_dict()
    for name in [*mine, *(name for name in theirs if name not in mine)]:
        found, wanted = (f"of shape {list(np.shape(arrays[name]))}" if name in arrays else "missing"
                         for arrays in (theirs, mine))
        if found != wanted:
            raise InputError(f"{file}: of another network: its {name} is {found}, that of this network is {wanted}")
    network.set_state_dict(theirs)


def _load_optimizer(model: paddle.Model, file: Path) -> None:
    content = load_arrays(file)
    names = {parameter.name for parameter in model.network.parameters()}
    for name in content:
        if name not in ("LR_Scheduler", "master_weights") and not any(name.startswith(f"{own}_") for own in names):
            raise InputError(f"{file}: of another optimizer: its {name} belongs to no parameter of this network; where "
                             "it is the same network, make it as the first one of the process, as when it was saved")
    rate = model._optimizer._learning_rate
    schedules = isinstance(rate, paddle.optimizer.lr.LRScheduler)
    if schedules != ("LR_Scheduler" in content):
        raise InputError(f"{file}: of another optimizer: it has {'no' if schedules else 'a'} learning rate schedule, "
                         f"this optimizer has {'one' if schedules else 'none'}")
    try:
        missing = sorted(rate.state_dict().keys() - content["LR_Scheduler"].keys()) if schedules else []
        if missing:  # which Paddle 3 only warns of
            raise KeyError(f"its learning rate schedule has no {', '.join(missing)}")
        masters = {name: paddle.to_tensor(array) for name, array in content.pop("master_weights", {}).items()}
        for name, master in masters.items():  # Paddle takes these as they are, and their moments go by their names
            master.name = f"{name}_fp32_master_0"
        if masters:
            content["master_weights"] = masters
        model._optimizer.set_state_dict({name: paddle.to_tensor(value) if isinstance(value, np.ndarray) else value
                                         for name, value in content.items()})
    except (AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[-300:]
        raise InputError(f"{file}: this optimizer cannot go on from it: {reason}") from None
