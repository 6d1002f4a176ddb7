"""Writes what TensorBoard shows of a training, and reads its curves back."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from tensorboardX import summary
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import RecordWriter

_FILES = "events.out.tfevents.*"
_MAX_RECORD = 1 << 26  # bytes; a scalar has some 50, a picture some 100,000


class SparsityWriter:
    """Writes a TensorBoard event file.

    tensorboardX's `SummaryWriter` writes in a background thread, which loses queued events when the process is killed,
    and names its files after the host. This class writes the same records at once, to
    `events.out.tfevents.<nanoseconds since 1970>`: TensorBoard reads the files of a folder in the order of their names.
    Texts, histograms, pictures and settings reach the disk with the next scalars, or with `flush` or `close`.

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

    def text(self, step: int, tag: str, markdown: str) -> None:
        """Writes a Markdown text, which TensorBoard shows without HTML of its own."""
        self._write(step, summary=summary.text(tag, markdown))

    def fractions(self, step: int, tag: str, values: Sequence[float]) -> None:
        """Writes a histogram of values between 0 and 1."""
        histogram = summary.histogram(tag, np.asarray(values, "float64"), bins=np.linspace(0, 1, 41))
        self._write(step, summary=histogram)

    def image(self, step: int, tag: str, encoded: bytes, width: int, height: int) -> None:
        """Writes an RGB picture.

        Args:
            step: optimizer step.
            tag: its name.
            encoded: the content of a PNG or JPEG file.
            width: in pixels.
            height: in pixels.
        """
        image = Summary.Image(width=width, height=height, colorspace=3, encoded_image_string=encoded)
        self._write(step, summary=Summary(value=[Summary.Value(tag=tag, image=image)]))

    def layout(self, charts: Mapping[str, Any]) -> None:
        """Writes which curves TensorBoard shows in one chart under Custom Scalars.

        Args:
            charts: as `SummaryWriter.add_custom_scalars` takes them: `{category: {title: [kind, tags]}}`, where the
                kind is `Multiline` with regular expressions of tags, or `Margin` with a value and its two bounds.
        """
        self._write(0, summary=summary.custom_scalars(charts))

    def hyperparameters(self, values: Mapping[str, bool | float | str], metrics: Sequence[str]) -> None:
        """Writes the settings of a run, by which TensorBoard compares runs under HParams.

        Args:
            values: the settings by name.
            metrics: tags of the scalars that are the results of a run.
        """
        experiment, begin, _ = summary.hparams(dict(values), dict.fromkeys(metrics, 0))
        for one in (experiment, begin):
            self._write(0, summary=one)

    def end(self) -> None:
        """Marks the run as finished under HParams."""
        *_, end = summary.hparams({}, {})
        self._write(0, summary=end)

    def flush(self) -> None:
        """Has what was written reach the disk."""
        self._records.flush()

    def close(self) -> None:
        """Closes the event file."""
        self._records.close()


def read_curves(log_dir: str | os.PathLike[str]) -> dict[str, list[tuple[int, float]]]:
    """Reads the scalars of a folder that `SparsityWriter` wrote, as TensorBoard would show them.

    Returns:
        For each tag its points (step, value) in the order of the steps; empty if there is no event file. What a killed
        process left half written is left out.
    """
    curves: dict[str, dict[int, float]] = {}
    for file in sorted(Path(log_dir).glob(_FILES)):
        for event in _events(file):
            if event.session_log.status == SessionLog.START:
                curves = {
                    tag: {step: value for step, value in points.items() if step < event.step}
                    for tag, points in curves.items()
                }
            for value in event.summary.value:
                if value.WhichOneof("value") == "simple_value":
                    curves.setdefault(value.tag, {})[event.step] = value.simple_value
    return {tag: sorted(points.items()) for tag, points in curves.items() if points}


def _events(file: Path) -> Iterator[Any]:
    """Yields the events of a file up to its end or the first damaged one."""
    with file.open("rb") as stream:
        while len(header := stream.read(12)) == 12:  # length and checksum
            [length] = struct.unpack("<Q4x", header)
            if length > _MAX_RECORD:
                return
            content = stream.read(length + 4)
            try:
                event = Event.FromString(content[:length])
            except DecodeError:
                return
            if len(content) < length + 4:
                return
            yield event
