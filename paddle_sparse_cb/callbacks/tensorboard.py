"""Curves of a sparse training for TensorBoard."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

from ..pruning.statistics import SparsityReport


class SparsityWriter:
    """Writes scalars in TensorBoard's format.

    Args:
        log_dir: the folder for the event file.
        purge_step: the curves of an earlier training in this folder end before this step; None lets them be.
    """

    def __init__(self, log_dir: str | os.PathLike[str], purge_step: int | None = None) -> None:
        os.makedirs(log_dir, exist_ok=True)
        # SummaryWriter writes in a thread, and what waits there is lost in a kill; this is what it writes with.
        self._writer = EventsWriter(os.path.join(log_dir, "events"), f".{os.getpid()}")
        if purge_step is not None:
            self._write(purge_step, session_log=SessionLog(status=SessionLog.START))
            self._writer.flush()

    def _write(self, step: int, **what: Any) -> None:
        self._writer.write_event(Event(wall_time=time.time(), step=step, **what))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes values under their tags at an optimizer step; they are in the file when this returns."""
        for tag, value in values.items():
            self._write(step, summary=Summary(value=[Summary.Value(tag=tag, simple_value=value)]))
        self._writer.flush()

    def layers(self, step: int, report: SparsityReport) -> None:
        """Writes `sparsity_layer/<structured name>` of each pruned weight."""
        self.scalars(step, {f"sparsity_layer/{layer.name}": layer.ratio for layer in report.layers if layer.pruned})

    def close(self) -> None:
        """Writes out what is left."""
        self._writer.close()
