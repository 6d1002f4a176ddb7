"""Where a training is, and the checkpoint that it resumes from."""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paddle

from ..errors import InputError
from ..utils.weight_files import parse_arrays
from .identity import check_identity, restore_rate, warn_of_other_versions
from .load import load_network, load_optimizer
from .state import TrainingState, load_state

# `<epoch>` after an epoch, `<epoch>_<batches>` within one.
CHECKPOINT_NAME = re.compile(r"(\d+)(?:_(\d+))?\.pd(?:sparse|params)")


@dataclass(frozen=True, order=True)
class TrainingPosition:
    """Where a training is.

    Attributes:
        epoch: counted from 0.
        batch: completed batches of this epoch. If these are all batches, the evaluation that follows the epoch is
            still to be made.
    """

    epoch: int = 0
    batch: int = 0


@dataclass(eq=False)
class ResumeState:
    """A verified checkpoint that a training resumes from; its files are read and hashed once.

    Create it with `ResumeState.open` or `find_checkpoint`.

    Attributes:
        path: the `.pdsparse` file.
        state: the content of that file.
        position: where the training was.
    """

    path: Path
    state: TrainingState
    position: TrainingPosition
    _contents: dict[str, bytes] = field(repr=False)  # of the files, until they are loaded

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> ResumeState:
        """Reads a checkpoint and verifies all of its files.

        Args:
            path: the `.pdsparse` file.

        Raises:
            InputError: a file is missing, damaged, or does not belong to this checkpoint.
        """
        path = Path(path)
        state = load_state(path)
        contents = {name: _read_verified(path, name, digest) for name, digest in state.files.items()}
        return cls(path, state, position_of(path, state), contents)

    def has(self, suffix: str) -> bool:
        """Returns whether the checkpoint has a file with this suffix, such as `.pdopt`."""
        return f"{self.path.stem}{suffix}" in self.state.files

    def arrays(self, suffix: str) -> dict[str, Any]:
        """Returns the arrays of one of the checkpoint's files, by name.

        Args:
            suffix: `.pdparams`, `.pdopt`, `.pdscaler`, `.pdema` or `.pddistill`.

        Raises:
            InputError: the checkpoint has no such file, or it holds anything but arrays.
        """
        file = self.path.with_suffix(suffix)
        if not self.has(suffix):
            raise InputError(f"{self.path}: this checkpoint has no {suffix} file")
        content = self._contents.pop(file.name, None)  # a second training in this process reads the file again
        if content is None:
            content = _read_verified(self.path, file.name, self.state.files[file.name])
        return parse_arrays(content, file)

    def position_in(self, batches: int | None, allow_config_change: bool = False) -> TrainingPosition:
        """Returns the position in a run whose epochs may have another number of batches.

        Args:
            batches: batches of an epoch of this run; None if unknown.
            allow_config_change: the number may differ from the checkpoint's.

        Raises:
            InputError: the numbers differ and the checkpoint was saved within an epoch.
        """
        saved = self.state.training.get("batches")
        if batches is None or batches == saved or not allow_config_change:  # `load_into` raises where it is an error
            return self.position
        if self.position.batch != saved:
            raise InputError(
                f"{self.path}: saved after {self.position.batch} of {saved} batches of epoch "
                f"{self.position.epoch}, but an epoch of this run has {batches} batches; resume from a "
                "checkpoint that was saved at the end of an epoch"
            )
        return TrainingPosition(self.position.epoch, batches)

    def load_into(
        self,
        model: paddle.Model,
        batches: int | None = None,
        allow_config_change: bool = False,
        identity: Mapping[str, Any] | None = None,
    ) -> int:
        """Loads network, optimizer with its learning rate, and loss scaling into a prepared model.

        Args:
            model: built in the same order as the saved one: Paddle's optimizers refer to parameters by names that are
                numbered as they are created.
            batches: batches of an epoch of this run; None if unknown.
            allow_config_change: epochs may have another number of batches, and the run another number of ranks.
                Completed steps are then counted as if all epochs had the new length.
            identity: what identifies this training (`describe_training`); None is not compared.

        Returns:
            The completed optimizer steps.

        Raises:
            InputError: the checkpoint is one of another network, optimizer, epoch length or number of ranks, or the
                identities differ.
        """
        training = self.state.training
        found = training.get("identity")
        saved_identity = found if isinstance(found, dict) else {}
        saved, step = training.get("batches"), self.state.step
        is_scaled = bool(allow_config_change and batches and saved and batches != saved)
        scale = batches / saved if is_scaled and batches and saved else 1
        if identity and saved_identity:
            check_identity(saved_identity, identity, str(self.path), allow_config_change)
            warn_of_other_versions(self.state.versions, str(self.path))
        self._load(model, batches, allow_config_change)
        if identity and saved_identity and saved_identity.get("learning_rate") == identity["learning_rate"]:
            restore_rate(model._optimizer, training.get("learning_rate"))  # else the new one is wanted
        rate = getattr(model._optimizer, "_learning_rate", None)
        if is_scaled and isinstance(rate, paddle.optimizer.lr.LRScheduler):
            rate.step(round(rate.last_epoch * scale))
        return round(step * scale)

    def _load(self, model: paddle.Model, batches: int | None, allow_config_change: bool) -> None:
        if not allow_config_change:
            ranks = paddle.distributed.get_world_size()
            for key, current in {"batches": batches, "ranks": ranks}.items():
                saved = self.state.training.get(key)
                if current is not None and saved != current:
                    raise InputError(f"{self.path}: {key} is {saved} in the checkpoint and {current} in this run")
        load_network(model.network, self.arrays(".pdparams"), self.path.with_suffix(".pdparams"))
        if self.has(".pdopt") and model._optimizer is not None:
            load_optimizer(model, self.arrays(".pdopt"), self.path.with_suffix(".pdopt"))
        if self.has(".pdscaler") and getattr(model, "_scaler", None) is not None:
            model._scaler.load_state_dict(self.arrays(".pdscaler"))


def _read_verified(path: Path, name: str, digest: str) -> bytes:
    """Reads a file of a checkpoint and compares its digest."""
    file = path.parent / Path(name).name  # a name and nothing else: a stranger's state must not lead to another folder
    if not file.is_file():
        raise InputError(f"{path}: {file} is missing, which belongs to this checkpoint")
    content = file.read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        raise InputError(f"{path}: {file} does not belong to this checkpoint: it was written by another save")
    return content


def position_of(path: Path, state: TrainingState) -> TrainingPosition:
    """Returns the position that a checkpoint was saved at, or raises InputError if its state does not say."""
    epoch, batch = state.training.get("epoch"), state.training.get("batch")
    if type(epoch) is not int or type(batch) is not int or min(epoch, batch) < 0:
        raise InputError(f"{path}: does not say at which epoch and batch it was saved")
    return TrainingPosition(epoch, batch)


def find_checkpoint(
    folder: str | os.PathLike[str], warn: Callable[[str], object] = warnings.warn
) -> ResumeState | None:
    """Finds the newest complete checkpoint of a training.

    Args:
        folder: the folder of a `Checkpoints` callback.
        warn: called with a line about each newer checkpoint that is incomplete or damaged.

    Returns:
        The verified checkpoint; None if there is none.
    """
    positions = {
        file.stem: (int(found[1]), found[2] is None, int(found[2] or 0))
        for file in Path(folder).glob("*.pd*")
        if (found := CHECKPOINT_NAME.fullmatch(file.name))
    }
    for name in sorted(positions, key=positions.__getitem__, reverse=True):
        try:
            return ResumeState.open(Path(folder, f"{name}.pdsparse"))
        except InputError as error:
            warn(f"checkpoint skipped: {error}")
    return None


def last_checkpoint(folder: str | os.PathLike[str], warn: Callable[[str], object] = warnings.warn) -> Path | None:
    """Returns the `.pdsparse` file of the newest complete checkpoint, see `find_checkpoint`; None if there is none."""
    found = find_checkpoint(folder, warn)
    return found.path if found else None
