"""`EvaluationLog`: a JSON file with the metrics and the sparsity at each evaluation."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..utils.distributed import is_rank_zero
from ..utils.files import write_text
from .session import FitCallback


class EvaluationLog(FitCallback):
    """Writes one row per evaluation to a JSON file: epoch, sparsity and metrics.

    A metric that is not finite is written as null. A resumed training keeps the rows of the completed epochs; a new
    one removes an earlier file. Only rank 0 writes.

    Args:
        path: the JSON file.
        metrics: names of the metrics to log, such as `mAP`.
    """

    def __init__(self, path: Path, metrics: Sequence[str]) -> None:
        super().__init__()
        self.path, self.metrics = path, tuple(metrics)
        self._rows: list[dict[str, Any]] = []

    def begin_training(self) -> None:
        """Reads the rows to keep, or removes the file of an earlier training."""
        self._rows = []
        if self.session.resume is not None and self.path.is_file():
            epoch = self.session.position.epoch
            self._rows = [row for row in read_evaluations(self.path) if row["epoch"] < epoch]
        elif is_rank_zero():
            self.path.unlink(missing_ok=True)

    def on_eval_end(self, logs: Any = None) -> None:
        """Appends a row and writes the file."""
        pruner = self.session.pruner
        values = {name: float((logs or {})[name]) for name in self.metrics}
        self._rows.append(
            {
                "epoch": self.session.position.epoch,
                "sparsity": pruner.sparsity() if pruner else 0.0,
                **{name: value if math.isfinite(value) else None for name, value in values.items()},
            }
        )
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
