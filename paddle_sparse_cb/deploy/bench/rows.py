"""The rows of the table: what was measured, and how much faster sparse kernels are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Row:
    """The latency of one model in one runtime.

    Rows are compared with each other if they have the same device, cluster, group and number of threads.

    Attributes:
        runtime: name of the runtime.
        version: its version.
        kind: `dense` or `sparse`: the kernels that compute the pruned layers.
        ratio: fraction of zeros in the weights that may be pruned; None if unknown.
        block: rows and columns of the blocks of zeros.
        precision: precision of the computation, such as `FP32`.
        threads: number of threads.
        mb: size of the model's files in 10^6 bytes.
        ms: median latency in milliseconds.
        spread: interquartile range of the latency divided by its median.
        map: mAP of the model in this runtime, as a fraction; None if it was not measured.
        trained: whether the weights are trained; False if unknown.
        disturbed: whether other work on the machine may have influenced the latency.
        note: what else a reader must know.
        device: where it was measured; empty for this machine.
        file: the model's file, where it tells the models apart.
        cluster: the cores of a device that were asked for: `any`, `big` or `little`; empty for this machine.
        cpus: the processors of a device that the runtime could use in the end.
        temperature: degrees Celsius of a device before and after; None if not known.
        group: models that can replace each other; others are not compared.
        speedup: (dense - sparse) / sparse over the fastest dense row of the same runtime; None for a dense row.
        speedup_fastest: the same over the fastest dense row of any runtime; negative for a slower row.
    """

    runtime: str
    version: str
    kind: str
    ratio: float | None
    block: tuple[int, int]
    precision: str
    threads: int
    mb: float
    ms: float
    spread: float
    map: float | None = None
    trained: bool = False
    disturbed: bool = False
    note: str = ""
    device: str = ""
    file: str = ""
    group: str = ""
    cluster: str = ""
    cpus: tuple[int, ...] = ()
    temperature: tuple[float | None, float | None] | None = None
    speedup: float | None = None
    speedup_fastest: float | None = None

    @property
    def fps(self) -> float:
        """Inferences per second, one after another."""
        return 1e3 / self.ms

    def to_dict(self) -> dict[str, Any]:
        """Returns the row as plain values that can be saved as JSON."""
        keys = (
            *("runtime", "version", "kind", "ratio", "block", "precision", "threads", "mb", "ms", "spread"),
            *("speedup", "speedup_fastest", "map", "trained", "disturbed", "note", "device", "file"),
            *("cluster", "cpus", "temperature"),
        )
        values = ((key, getattr(self, key)) for key in keys)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values}


def compare(rows: Sequence[Row]) -> list[Row]:
    """Returns the rows with their speed-ups; those without a dense row to compare with have none."""
    return [
        replace(
            row,
            speedup=_speedup(row, (one for one in rows if _same_runtime(one, row))) if row.kind == "sparse" else None,
            speedup_fastest=_speedup(row, rows),
        )
        for row in rows
    ]


def _same_runtime(one: Row, other: Row) -> bool:
    return (one.runtime, one.precision) == (other.runtime, other.precision)


def _speedup(row: Row, others: Iterable[Row]) -> float | None:
    """Returns (dense - own) / own for the fastest comparable dense row, without a negative zero."""
    dense = [one.ms for one in others if one.kind == "dense" and _conditions(one) == _conditions(row)]
    return (min(dense) - row.ms) / row.ms + 0.0 if dense else None


def _conditions(row: Row) -> tuple[object, ...]:
    return row.device, row.cluster, row.group, row.threads
