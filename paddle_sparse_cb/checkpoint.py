"""Checkpoints of `paddle.Model`, each file written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import paddle

from .attached import attached_pruner
from .files import put_in_place
from .state import file_digest, save_state


class Checkpoints(paddle.callbacks.Callback):
    """Saves `<epoch>.pdparams` and `.pdopt` every so many epochs, and `final` at the end.

    While a network is being pruned, `<epoch>.pdsparse` is the pruning state that belongs to them: what
    `SparsityCallback(resume=...)` goes on from.

    hapi's own `ModelCheckpoint` writes in place, so that a kill or a full disk leaves half a file under a good name.

    Args:
        folder: where the files go.
        every: epochs between two checkpoints.
    """

    def __init__(self, folder: str | os.PathLike[str], every: int = 1) -> None:
        super().__init__()
        self.folder = Path(folder)
        self.every = every

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Saves the epoch, if it is one to save."""
        if (epoch + 1) % self.every == 0:
            self.save(str(epoch))

    def on_train_end(self, logs: Any = None) -> None:
        """Saves `final`."""
        self.save("final")

    def save(self, name: str) -> None:
        """Saves the network and the optimizer under a name, on rank 0."""
        if paddle.distributed.get_rank() != 0:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        state_file = self.folder / f"{name}.pdsparse"
        pruner = attached_pruner(self.model._optimizer) if self.model._optimizer else None
        with tempfile.TemporaryDirectory(prefix=".", dir=self.folder) as scratch:
            self.model.save(str(Path(scratch, name)))
            files = sorted(Path(scratch).iterdir())
            digests = {file.name: file_digest(file) for file in files} if pruner else {}
            for file in files:  # .pdopt before .pdparams: with the latter, all is there
                put_in_place(file, self.folder / file.name)
        if pruner:  # last: it says what the others have to be
            save_state(replace(pruner.state(), files=digests), state_file)
        else:
            state_file.unlink(missing_ok=True)  # of an earlier training, and not of these weights
