"""What each evaluation of a training has measured, at which sparsity."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import paddle

from ..errors import InputError
from ..pruning.optimizer_hook import get_attached_pruner
from ..utils.distributed import is_rank_zero
from ..utils.files import write_text
from .resume import TrainingPosition


class EvaluationLog(paddle.callbacks.Callback):
    """Keeps a row for each evaluation in a JSON file: epoch, sparsity, and the figures named.

    Args:
        path: the file.
        names: of the evaluation's figures, such as `mAP`.
        place: where the training goes on from an earlier one, whose rows up to there are kept.
    """

    def __init__(self, path: Path, names: tuple[str, ...], place: TrainingPosition | None = None) -> None:
        super().__init__()
        self.path, self.names, self.place = path, names, place or TrainingPosition()
        self._rows: list[dict[str, Any]] = []

    def on_train_begin(self, logs: Any = None) -> None:
        """Takes up the rows of the training that goes on."""
        goes_on = self.place != TrainingPosition() and self.path.is_file()
        self._rows = [row for row in read_evaluations(self.path) if row["epoch"] < self.place.epoch] if goes_on else []
        if not goes_on and is_rank_zero():
            self.path.unlink(missing_ok=True)  # of an earlier training

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Notes the epoch."""
        self.place = TrainingPosition(epoch)

    def on_eval_end(self, logs: Any = None) -> None:
        """Adds a row."""
        pruner = get_attached_pruner(self.model._optimizer)
        figures = {name: float((logs or {})[name]) for name in self.names}
        self._rows.append({"epoch": self.place.epoch, "sparsity": pruner.sparsity() if pruner else 0.0, **figures})
        if is_rank_zero():
            write_text(self.path, json.dumps(self._rows, indent=1) + "\n")


def read_evaluations(path: Path) -> list[dict[str, Any]]:
    """The rows of an `EvaluationLog`.

    Raises:
        InputError: the file is missing or damaged.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        if all(isinstance(value, (int, float)) for row in rows for value in (row["epoch"], row["sparsity"])):
            return list(rows)
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(f"{path}: no log of evaluations: {type(error).__name__} {error}") from None
    raise InputError(f"{path}: no log of evaluations: epoch and sparsity are numbers")


def best_by_sparsity(rows: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """The best row of each level of sparsity, in a tenth of a percent, the sparsest last."""
    best: dict[float, dict[str, Any]] = {}
    for row in rows:
        level = round(row["sparsity"], 3)
        if level not in best or row[name] > best[level][name]:
            best[level] = row
    return [best[level] for level in sorted(best)]
