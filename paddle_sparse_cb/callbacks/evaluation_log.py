"""`EvaluationLog`: a JSON file with the metrics and the sparsity at each evaluation."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import paddle

from ..errors import InputError
from ..pruning.optimizer_hook import get_attached_pruner
from ..utils.distributed import is_rank_zero
from ..utils.files import write_text
from .resume import TrainingPosition


class EvaluationLog(paddle.callbacks.Callback):
    """Writes one row per evaluation to a JSON file: epoch, sparsity and metrics.

    A metric that is not finite is written as null. Only rank 0 writes.

    Args:
        path: the JSON file. A new training removes an earlier file.
        metrics: names of the metrics to log, such as `mAP`.
        position: position of the checkpoint that the training resumes from; rows of earlier epochs are kept. `None`
            starts a new file.
    """

    def __init__(self, path: Path, metrics: Sequence[str], position: TrainingPosition | None = None) -> None:
        super().__init__()
        self.path, self.metrics, self.position = path, tuple(metrics), position or TrainingPosition()
        self._rows: list[dict[str, Any]] = []
        self._epoch = 0

    def on_train_begin(self, logs: Any = None) -> None:
        """Reads the rows to keep, or removes the file of an earlier training."""
        self._epoch = self.position.epoch
        self._rows = []
        if self.position != TrainingPosition() and self.path.is_file():
            self._rows = [row for row in read_evaluations(self.path) if row["epoch"] < self._epoch]
        elif is_rank_zero():
            self.path.unlink(missing_ok=True)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Notes the epoch."""
        self._epoch = epoch

    def on_eval_end(self, logs: Any = None) -> None:
        """Appends a row and writes the file."""
        pruner = get_attached_pruner(self.model._optimizer)
        values = {name: float((logs or {})[name]) for name in self.metrics}
        self._rows.append({"epoch": self._epoch, "sparsity": pruner.sparsity() if pruner else 0.0,
                           **{name: value if math.isfinite(value) else None for name, value in values.items()}})
        if is_rank_zero():
            write_text(self.path, json.dumps(self._rows, indent=1) + "\n")


def read_evaluations(path: Path) -> list[dict[str, Any]]:
    """Reads the rows of an `EvaluationLog`.

    Returns:
        One dict per evaluation: `epoch` (from 0), `sparsity` (a fraction) and the metrics, `None` where not finite.

    Raises:
        InputError: the file is missing or not a valid log.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        if all(_is_valid(row) for row in rows):
            return list(rows)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(f"{path}: not a valid evaluation log: {type(error).__name__} {error}") from None
    raise InputError(f"{path}: not a valid evaluation log: epoch and sparsity must be numbers, metrics numbers or null")


def _is_valid(row: dict[str, Any]) -> bool:
    required = all(isinstance(row[name], (int, float)) for name in ("epoch", "sparsity"))
    return required and all(value is None or isinstance(value, (int, float)) for value in row.values())


def best_by_sparsity(rows: list[dict[str, Any]], metric: str) -> list[dict[str, Any]]:
    """Selects the row with the highest metric at each level of sparsity, in order of increasing sparsity.

    Sparsities are rounded to 0.1 percent. Rows without a value of the metric are skipped.
    """
    best: dict[float, dict[str, Any]] = {}
    for row in rows:
        level, value = round(row["sparsity"], 3), row.get(metric)
        if value is not None and (level not in best or value > best[level][metric]):
            best[level] = row
    return [best[level] for level in sorted(best)]
