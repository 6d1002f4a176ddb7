"""The table of `paddle-sparse plan --measure`: size and latency for each ratio and block."""

from __future__ import annotations

from typing import Any

from ..utils.tables import render_table
from .bench import DISTURBED, bench_captions, signed


def plan_latency_table(result: dict[str, Any]) -> str:
    """Renders the table and the lines below it.

    Args:
        result: `machine`, `rows` and `notes`; the first row is the dense model.
    """
    dense = result["rows"][0]
    headers = ("zeros", "block", ".nb MB", "of dense", ".mnn MB", "of dense", "ms", "speed-up")
    rows = [
        (
            f"{row['ratio']:.0%}" if row["kind"] == "sparse" else "dense",
            "x".join(map(str, row["block"])) if row["kind"] == "sparse" else "-",
            *_size(row["nb_mb"], dense["nb_mb"]),
            *_size(row["mb"], dense["mb"]),
            f"{row['ms']:.2f}{DISTURBED if row['disturbed'] else ''}",
            signed(row["speedup"]),
        )
        for row in result["rows"]
    ]
    runtime = f"{dense['runtime']} {dense['version']}, {dense['threads']} thread, {dense['precision']}"
    return "\n".join([render_table(headers, rows, "lrrrrrrr"), runtime, *bench_captions(result)])


def _size(mb: float | None, dense: float | None) -> tuple[str, str]:
    return ("-", "-") if mb is None or dense is None else (f"{mb:.2f}", f"{mb / dense:.2f}")
