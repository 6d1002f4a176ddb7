"""`EvaluationLog`: the metrics of each evaluation of a training, and its sparsity."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..utils.distributed import is_rank_zero
from ..utils.files import write_text
from .session import FitCallback


class EvaluationLog(FitCallback):
    """Writes epoch, sparsity and metrics of each evaluation to a JSON file.

    A resumed training keeps the rows of the completed epochs.

    Args:
        path: the file.
        names: the metrics to write, such as `mAP`.
    """

    def __init__(self, path: Path, names: tuple[str, ...]) -> None:
        super().__init__()
        self.path, self.names = path, names
        self._rows: list[dict[str, Any]] = []

    def begin_training(self) -> None:
        """Keeps the rows of the training that is resumed, and removes the file of any other one."""
        epoch, is_resumed = self.session.position.epoch, self.session.resume is not None and self.path.is_file()
        self._rows = [row for row in read_evaluations(self.path) if row["epoch"] < epoch] if is_resumed else []
        if not is_resumed and is_rank_zero():
            self.path.unlink(missing_ok=True)

    def on_eval_end(self, logs: Any = None) -> None:
        """Adds a row."""
        pruner = self.session.pruner
        metrics = {name: float((logs or {})[name]) for name in self.names}
        self._rows.append({"epoch": self.session.position.epoch, "sparsity": pruner.sparsity() if pruner else 0.0,
                           **metrics})
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
