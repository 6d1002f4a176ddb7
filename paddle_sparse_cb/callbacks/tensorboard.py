"""Writes the curves of a sparse training for TensorBoard."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import RecordWriter

from ..pruning.statistics import SparsityReport


class SparsityWriter:
    """Writes scalars to a TensorBoard event file.

    tensorboardX's `SummaryWriter` writes in a background thread, which loses queued events when the process is killed,
    and names its files after the host. This class writes the same records at once, to
    `events.out.tfevents.<nanoseconds since 1970>`: TensorBoard reads the files of a folder in the order of their names.

    Args:
        log_dir: folder of the event file; created if missing.
        purge_step: optimizer step from which events of earlier files in this folder are discarded, as a resumed
            training writes them again. `None` keeps earlier events.
    """

    def __init__(self, log_dir: str | os.PathLike[str], purge_step: int | None = None) -> None:
        os.makedirs(log_dir, exist_ok=True)
        self._records = RecordWriter(str(Path(log_dir, f"events.out.tfevents.{time.time_ns()}")))
        self._write(0, file_version="brain.Event:2")
        if purge_step is not None:
            self._write(purge_step, session_log=SessionLog(status=SessionLog.START))
        self._records.flush()

    def _write(self, step: int, **fields: Any) -> None:
        self._records.write(Event(wall_time=time.time(), step=step, **fields).SerializeToString())

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes values by tag at an optimizer step, and flushes them to the disk."""
        for tag, value in values.items():
            self._write(step, summary=Summary(value=[Summary.Value(tag=tag, simple_value=value)]))
        self._records.flush()

    def layers(self, step: int, report: SparsityReport) -> None:
        """Writes the sparsity of each pruned weight under `sparsity_layer/<structured name>`."""
        self.scalars(step, {f"sparsity_layer/{layer.name}": layer.ratio for layer in report.layers if layer.pruned})

    def close(self) -> None:
        """Closes the event file."""
        self._records.close()
