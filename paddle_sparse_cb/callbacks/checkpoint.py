"""`Checkpoints`: saves everything that a training needs to resume."""

from __future__ import annotations

import contextlib
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import paddle

from ..checkpoints.archive import archive_other_trainings
from ..checkpoints.identity import rate_state
from ..checkpoints.store import remove_partial_writes, remove_within_epoch, save_checkpoint
from ..errors import InputError
from ..utils.distributed import is_rank_zero, rank_zero_info
from ..utils.locks import lock_folder
from ..utils.validation import check_path
from .compat import nested_callbacks
from .session import FitCallback

if TYPE_CHECKING:
    from ..pruning.pruner import GMPPruner  # PaddleSlim takes seconds to import


class Checkpoints(FitCallback):
    """Saves `<epoch>` every few epochs and after the last one, `<epoch>_<batches>` within an epoch, and `final`.

    A checkpoint consists of `.pdparams` and `.pdopt` as hapi writes them (also `.pdscaler` under mixed precision),
    `.pdema` if an `EMACallback` takes part, `.pddistill` if a `Distillation` has projections, and `.pdsparse`, which
    is written last and holds the digests of the other files, the masks, the step and the position of the training.
    The checkpoint of an epoch is saved after its last batch and before the evaluation that follows.

    Pruned weights are zero in every checkpoint: those that another callback changed after the optimizer step are set to
    zero before saving, with a warning.

    While it trains, the folder is locked. A new training moves the checkpoints of an earlier one to `earlier.<number>`
    in the folder; a resumed training moves those that come after the one it resumes from.

    Each file is complete or not there. hapi's own `ModelCheckpoint` writes in place, so that a killed process or a full
    disk leaves half a file.

    Args:
        folder: the folder of the checkpoints.
        every: epochs between two checkpoints.
        every_batches: batches between two checkpoints within an epoch, of which the newest is kept; None saves none.
            Within a gradient accumulation the checkpoint is saved after the optimizer step.
        training: plain values to keep in the state.

    Raises:
        InputError: when created, if the folder is no path.

    Examples:
        >>> import paddle, tempfile
        >>> from paddle_sparse_cb import Checkpoints, last_checkpoint
        >>> data = paddle.io.TensorDataset([paddle.rand([32, 8]), paddle.randint(0, 4, [32, 1])])
        >>> network = paddle.nn.Linear(8, 4)
        >>> model = paddle.Model(network)
        >>> model.prepare(paddle.optimizer.SGD(0.1, parameters=network.parameters()), paddle.nn.CrossEntropyLoss())
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model.fit(data, epochs=2, batch_size=8, verbose=0, callbacks=[Checkpoints(folder)])
        ...     last_checkpoint(folder).name
        '1.pdsparse'
    """

    stage = 3

    def __init__(
        self,
        folder: str | os.PathLike[str],
        every: int = 1,
        every_batches: int | None = None,
        training: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.folder = check_path("folder", folder)
        self.every, self.every_batches = every, every_batches
        self.training = training or {}
        self._is_due = False
        self._has_ended_epoch = False
        self._lock = contextlib.ExitStack()

    def begin_training(self) -> None:
        """Locks the folder, removes what a killed process left half written, and moves other trainings' files aside.

        Raises:
            InputError: another process trains in the same folder, or the state of an optimizer cannot be saved.
        """
        self._check_optimizers()
        self._is_due = self._has_ended_epoch = False
        self._lock.enter_context(lock_folder(self.folder))
        if is_rank_zero():
            remove_partial_writes(self.folder)
            archived = archive_other_trainings(self.folder, self.session.resume)
            if archived:
                rank_zero_info(f"checkpoints that this training does not continue were moved to {archived}")

    def close(self) -> None:
        """Unlocks the folder."""
        self._lock.close()

    def on_train_batch_begin(self, step: int, logs: Any = None) -> None:
        """Saves the result of the previous batch if it is time to: by now the learning rate has been updated too."""
        super().on_train_batch_begin(step, logs)
        self._is_due |= bool(self.every_batches and step and step % self.every_batches == 0)
        if self._is_due and step % getattr(self.model, "_accumulate", 1) == 0:
            self._is_due = False
            self.save_position()

    def _check_optimizers(self) -> None:
        """Refuses optimizers around another optimizer, whose state Paddle leaves out of `.pdopt`."""
        kinds = (paddle.incubate.LookAhead, paddle.incubate.ModelAverage)
        callbacks = nested_callbacks(self.session.arguments.get("callbacks") or ())
        held = [value for one in callbacks for value in vars(one).values()]
        for one in [self.model._optimizer, *held]:
            if isinstance(one, kinds):
                raise InputError(
                    f"Checkpoints: {type(one).__name__} cannot be resumed, because Paddle saves only a part of its "
                    "state; train without it (EMACallback averages weights and can be resumed), or without Checkpoints"
                )

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Notes the end of the epoch."""
        super().on_epoch_end(epoch, logs)
        self._is_due, self._has_ended_epoch = False, True

    def after_epoch(self) -> None:
        """Saves the epoch if it is one to save: by now other callbacks have set the learning rate of the next one."""
        if not self._has_ended_epoch:  # an epoch that a resumed training skips
            return
        self._has_ended_epoch = False
        epoch = self.session.position.epoch
        if (epoch + 1) % self.every == 0 or epoch + 1 == self.params["epochs"]:
            self.save_position()

    def end_training(self) -> None:
        """Saves `final`, and removes checkpoints within an epoch that a killed process may have left."""
        self.save("final")
        if is_rank_zero():
            remove_within_epoch(self.folder)

    def save_position(self) -> Path:
        """Saves a checkpoint of the current position, and removes earlier checkpoints within an epoch.

        Returns:
            The `.pdsparse` file.
        """
        position = self.session.position
        is_epoch = position.batch == (self.params["steps"] or 0)
        name = str(position.epoch) if is_epoch else f"{position.epoch}_{position.batch}"
        self.save(name)
        if is_rank_zero():
            remove_within_epoch(self.folder, keep=name)
        return self.folder / f"{name}.pdsparse"

    def save(self, name: str, **more: Any) -> None:
        """Saves the network and the state of the training under a name, on rank 0.

        Args:
            name: the name of the files, without a suffix.
            more: plain values to keep in the state.

        Raises:
            DivergenceError: the network is not finite; earlier checkpoints are kept.
            OSError: the disk is full, for example; earlier checkpoints are kept.
        """
        if not is_rank_zero():
            return
        session = self.session
        if session.pruner is not None:
            _ensure_zeros(session.pruner, f"{self.folder / name}")
        training = {
            **self.training,
            "epoch": session.position.epoch,
            "batch": session.position.batch,
            "batches": (getattr(self, "params", None) or {}).get("steps"),
            "ranks": paddle.distributed.get_world_size(),
            "iterations": session.completed_iterations,
            "identity": session.identity,
            "learning_rate": rate_state(self.model._optimizer),
            "ema": session.average.settings() if session.average else None,
            **session.callback_states(),
            **more,
        }
        save_checkpoint(
            self.folder,
            name,
            self.model,
            training,
            session.pruner.state() if session.pruner else None,
            session.arrays(),
        )


def _ensure_zeros(pruner: GMPPruner, file: str) -> None:
    """Zeroes pruned weights that something changed after the optimizer step, with a warning.

    Such as a callback that restores earlier weights. The next step would zero them; a checkpoint must not miss it.
    """
    alive = pruner.count_alive()
    if alive:
        name, count = next(iter(alive.items()))
        warnings.warn(
            f"{file}: {sum(alive.values())} pruned weights were not zero before saving, {count} of them in {name}: "
            "something changed them after the optimizer step. They were set to zero",
            stacklevel=3,
        )
        with paddle.no_grad():
            pruner.update_params()
