"""The best model, where only a network that has reached its target ratio counts.

Accuracy is highest before the pruning starts. What hapi's callbacks keep as the best model of a sparse training is
therefore a dense one.
"""

from __future__ import annotations

import math
import os
import warnings
from typing import Any

import paddle

from ..checkpoints.state import load_verified
from ..checkpoints.store import Checkpoints, read_position
from ..errors import InputError
from ..pruning.optimizer_hook import is_target_reached
from ..utils.distributed import is_rank_zero
from .resume import TrainingPosition

_NAME = "best_model"


class SparseEarlyStopping(paddle.callbacks.EarlyStopping):
    """`paddle.callbacks.EarlyStopping` that looks only once the target ratio is reached.

    Evaluations before that are neither the best nor do they count as patience. Without a `SparsityCallback` in the same
    `fit` it is Paddle's own. The arguments are Paddle's; on several ranks rank 0 saves.

    Example:
        >>> from paddle_sparse_cb import SparseEarlyStopping
        >>> stopping = SparseEarlyStopping("mAP", mode="max", patience=10)
    """

    def on_eval_end(self, logs: Any = None) -> None:
        """Looks, if it is time to."""
        if is_target_reached(self.model._optimizer):
            if not is_rank_zero():
                self.save_best_model = False
            super().on_eval_end(logs)


class BestCheckpoint(Checkpoints):
    """Saves `best_model` after each evaluation that is better than all before it at the target ratio.

    Args:
        folder: where the files go.
        monitor: which of the evaluation's figures decides.
        mode: `max` or `min`, which is better.
        place: where the training goes on from an earlier one, whose best is to be surpassed.

    Raises:
        InputError: the mode is neither; at the first evaluation, when it has no such figure.
    """

    def __init__(self, folder: str | os.PathLike[str], monitor: str = "acc", mode: str = "max",
                 place: TrainingPosition | None = None) -> None:
        super().__init__(folder, place=place)
        if mode not in ("max", "min"):
            raise InputError(f"mode is max or min, got {mode!r}")
        self.monitor, self._sign = monitor, 1 if mode == "max" else -1
        self._best = -math.inf

    def on_train_begin(self, logs: Any = None) -> None:
        """Forgets an earlier training, or takes up its best."""
        super().on_train_begin(logs)
        self._best = -math.inf
        path = self.folder / f"{_NAME}.pdsparse"
        if self.place == TrainingPosition() or not path.is_file():
            return
        try:
            best, saved = load_verified(path).training.get("best"), read_position(path)
        except InputError as error:  # as after a kill; what was being saved is going to be measured again
            warnings.warn(f"not the best so far: {error}", stacklevel=2)
            return
        value = best.get(self.monitor) if isinstance(best, dict) else None
        if saved <= self.place and isinstance(value, (int, float)):
            self._best = self._sign * value

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Saves nothing yet: the evaluation follows."""
        self.place = TrainingPosition(epoch, self.params["steps"] or 0)

    def on_train_end(self, logs: Any = None) -> None:
        """Saves nothing more."""

    def on_eval_end(self, logs: Any = None) -> None:
        """Saves, if this is the best; a figure that is NaN never is."""
        value = (logs or {}).get(self.monitor)
        if isinstance(value, (list, tuple)):  # as hapi gives a loss
            value = value[0]
        if not isinstance(value, (int, float)):
            raise InputError(f"monitor: the evaluation has no figure {self.monitor!r}, it has "
                             f"{', '.join(map(str, logs or {}))}")
        if self._sign * value > self._best and is_target_reached(self.model._optimizer):
            self._best = self._sign * value
            self.save(_NAME, best={self.monitor: float(value)})
