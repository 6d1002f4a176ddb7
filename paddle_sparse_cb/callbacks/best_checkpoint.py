"""`BestCheckpoint`: keeps the best network at the target ratio.

Accuracy is highest before pruning starts, so that hapi's callbacks keep a dense network as the best of a sparse
training.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping
from numbers import Real
from typing import Any

from ..checkpoints.position import ResumeState
from ..errors import InputError
from ..utils.distributed import is_rank_zero
from .checkpoint import Checkpoints

NAME = "best_model"


class BestCheckpoint(Checkpoints):
    """Saves `best_model` after each evaluation that is better than all earlier ones at the target ratio.

    In a resumed training the best of the earlier run is to be surpassed.

    Args:
        folder: the folder of the checkpoint.
        monitor: the metric that decides.
        mode: `max` or `min`: which values are better.

    Raises:
        InputError: when created, if the mode is neither; at the first evaluation, if it has no such metric.

    Examples:
        >>> from paddle_sparse_cb import BestCheckpoint
        >>> best = BestCheckpoint("checkpoints", monitor="mAP")
    """

    def __init__(self, folder: str | os.PathLike[str], monitor: str = "acc", mode: str = "max") -> None:
        super().__init__(folder)
        if mode not in ("max", "min"):
            raise InputError(f"mode must be max or min, got {mode!r}")
        self.monitor, self._sign = monitor, 1 if mode == "max" else -1
        self._best = -math.inf

    def begin_training(self) -> None:
        """Takes over the best value of the training that is resumed."""
        super().begin_training()
        best = self._saved_best() if self.session.resume is not None else None
        self._best = -math.inf if best is None else self._sign * best

    def _saved_best(self) -> float | None:
        """The best value up to the position of the checkpoint, at the same target ratio; None if there is none."""
        path = self.folder / f"{NAME}.pdsparse"
        if not path.is_file():
            return None
        try:
            saved = ResumeState.open(path)
        except InputError as error:  # a killed process; the evaluation that was being saved is repeated
            warnings.warn(f"the best model so far is not used: {error}", stacklevel=2)
            return None
        best, pruner = saved.state.training.get("best"), self.session.pruner
        value = best.get(self.monitor) if isinstance(best, dict) else None
        same_target = _targets(saved.state.settings) == _targets(pruner.settings() if pruner else {})
        is_earlier = saved.position <= self.session.position
        return float(value) if is_earlier and same_target and isinstance(value, (int, float)) else None

    def on_train_batch_begin(self, step: int, logs: Any = None) -> None:
        """Saves nothing: only evaluations decide."""
        self._update_position(step)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Saves nothing: the evaluation follows."""
        self._end_epoch(epoch)

    def end_training(self) -> None:
        """Removes a best model that is not one of this training, such as one of another target ratio."""
        if self._best == -math.inf and is_rank_zero():
            for file in self.folder.glob(f"{NAME}.pd*"):
                file.unlink()

    def on_eval_end(self, logs: Any = None) -> None:
        """Saves the network if it is the best so far; a value that is not finite never is."""
        value = (logs or {}).get(self.monitor)
        if isinstance(value, (list, tuple)):  # as hapi logs a loss
            value = value[0]
        if not isinstance(value, Real):
            raise InputError(
                f"monitor: the evaluation has no metric {self.monitor!r}; it has {', '.join(map(str, logs or {}))}"
            )
        signed = self._sign * float(value)
        if math.isfinite(signed) and signed > self._best and self.session.target_reached:
            self._best = signed
            self.save(NAME, best={self.monitor: float(value)})


def _targets(settings: Mapping[str, Any]) -> tuple[Any, Any]:
    """Returns the target ratio in the settings of a pruner, and those of single layers."""
    return (settings.get("schedule") or {}).get("ratio"), settings.get("ratios") or {}
