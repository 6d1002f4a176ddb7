"""What hapi's progress bar shows: the values of this package's callbacks, and no NaN for what was not measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

import paddle


class LogSource(Protocol):
    """What this module knows of a `FitSession`."""

    @property
    def has_members(self) -> bool:
        """Whether a callback of this package takes part."""

    def log_values(self) -> Mapping[str, float]:
        """Returns what callbacks add to the logs of a training batch."""


class CompleteLogs(paddle.callbacks.Callback):
    """Adds the values of a session to `logs` before any other callback reads them; the first in hapi's list.

    Their names are added to hapi's list of metrics, from which its progress bar and its `VisualDL` take what they show.
    A metric of the same name takes precedence.
    """

    def __init__(self, session: LogSource) -> None:
        super().__init__()
        self.session = session
        self._reserved: set[str] = set()

    def on_train_begin(self, logs: Any = None) -> None:
        """Notes the names of the model's own metrics."""
        self._reserved = set(self.params["metrics"])

    def on_train_batch_end(self, step: int, logs: Any = None) -> None:
        """Adds the values and, at the first batch, their names."""
        if logs is None:
            return
        for name, value in self.session.log_values().items():
            if name not in self._reserved:
                logs[name] = value
                if name not in self.params["metrics"]:
                    self.params["metrics"].append(name)


class MeasuredBar(paddle.callbacks.ProgBarLogger):
    """hapi's progress bar without values that are NaN, which stand for what was not measured.

    A detector has no loss in evaluations, and no mAP before the first one. Without a callback of this package in the
    `fit`, it is hapi's bar unchanged.
    """

    def __init__(self, session: LogSource, log_freq: int, verbose: int) -> None:
        super().__init__(log_freq, verbose=verbose)
        self.session = session

    def _measured(self, logs: Any) -> Any:
        if not logs or not self.session.has_members:
            return logs
        return {name: value for name, value in logs.items() if not _is_nan(value)}

    def on_train_batch_end(self, step: int, logs: Any = None) -> None:
        """Updates the bar."""
        super().on_train_batch_end(step, self._measured(logs))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Completes the bar."""
        super().on_epoch_end(epoch, self._measured(logs))

    def on_eval_batch_end(self, step: int, logs: Any = None) -> None:
        """Updates the bar."""
        super().on_eval_batch_end(step, self._measured(logs))

    def on_eval_end(self, logs: Any = None) -> None:
        """Completes the bar."""
        super().on_eval_end(self._measured(logs))


def _is_nan(value: Any) -> bool:
    """Whether a logged value, or each number of a list, is NaN."""
    values = value if isinstance(value, (list, tuple)) and value else [value]
    return all(isinstance(one, float) and math.isnan(one) for one in values)
