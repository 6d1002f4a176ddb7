"""`ForwardingCallback`: a callback that has callbacks of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import paddle

from .session import FitCallback


class ForwardingCallback(FitCallback):
    """Base class of a callback that passes hapi's events of batches and evaluations on to callbacks of its own.

    They join the session, which begins and ends their training.

    Attributes:
        inner: the callbacks.
    """

    inner: Sequence[FitCallback] = ()

    def _tell(self, event: str, *values: Any) -> None:
        for callback in self.inner:
            getattr(callback, event)(*values)

    def set_model(self, model: paddle.Model) -> None:
        """Passes hapi's model on."""
        super().set_model(model)
        self._tell("set_model", model)

    def set_params(self, params: dict[str, Any]) -> None:
        """Passes hapi's parameters on."""
        super().set_params(params)
        self._tell("set_params", params)

    def on_train_batch_end(self, step: int, logs: Any = None) -> None:
        """Passes the event on."""
        self._tell("on_train_batch_end", step, logs)

    def on_eval_begin(self, logs: Any = None) -> None:
        """Passes the event on."""
        self._tell("on_eval_begin", logs)

    def on_eval_batch_end(self, step: int, logs: Any = None) -> None:
        """Passes the event on."""
        self._tell("on_eval_batch_end", step, logs)

    def on_eval_end(self, logs: Any = None) -> None:
        """Passes the event on."""
        self._tell("on_eval_end", logs)
