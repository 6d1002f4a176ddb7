"""The table of a report, with the columns of PicoDet's published table."""

from __future__ import annotations

from typing import Any

from ..utils.tables import render_table
from .bench import DISTURBED, headline, percent, signed

_HEADERS = ("", "model", "input size", "sparsity", "mAP 0.5:0.95", "AP50", ".nb MB", "sparse convolutions")
_LATENCY_HEADERS = ("ms", "speed-up", "over fastest dense")

_CHECKPOINTS = {"best_model": "best mAP at the target sparsity", "final": "end of the training"}


def report_table(report: dict[str, Any]) -> str:
    """Renders the rows of a report for the terminal, followed by its captions.

    Args:
        report: the content of `report.json`.
    """
    headers, align = table_headers(report)
    return "\n".join([render_table(headers, table_rows(report), align), *captions(report)])


def table_headers(report: dict[str, Any]) -> tuple[tuple[str, ...], str]:
    """The headers of the columns, and a letter for the alignment of each; the latency only where it was measured."""
    headers = (*_HEADERS, *(_LATENCY_HEADERS if report.get("bench") else ()))
    return headers, f"ll{'r' * (len(headers) - 2)}"


def table_rows(report: dict[str, Any]) -> list[tuple[str, ...]]:
    """The cells of each row: mAP and AP50 in percent, sizes in 10^6 bytes, `-` for what was not measured."""
    return [
        (
            row["name"],
            row["model"],
            "x".join(map(str, row["input_size"])),
            f"{row['sparsity']:.2%}",
            percent(row["map"]),
            percent(row["ap50"]),
            "-" if row["nb_bytes"] is None else f"{row['nb_bytes'] / 1e6:.2f}",
            "-" if row["convs"] is None else f"{row['sparse_convs']} of {row['convs']}",
            *_latency(report, row["name"]),
        )
        for row in report["rows"]
    ]


def _latency(report: dict[str, Any], kind: str) -> tuple[str, ...]:
    if not report.get("bench"):
        return ()
    row = headline(report["bench"]).get(kind)
    if row is None:
        return ("-",) * len(_LATENCY_HEADERS)
    star = DISTURBED if row["disturbed"] else ""
    return f"{row['ms']:.2f}{star}", signed(row["speedup"]), signed(row["speedup_fastest"])


def captions(report: dict[str, Any]) -> list[str]:
    """The lines below the table: the exported checkpoint, and why there is no dense row."""
    lines = []
    checkpoint = report.get("checkpoint")
    if checkpoint:
        meaning = _CHECKPOINTS.get(checkpoint)
        lines.append(f"Exported checkpoint: {checkpoint}" + (f" ({meaning})" if meaning else ""))
    if report.get("dense_note"):
        lines.append(f"No dense row: {report['dense_note']}")
    if report.get("bench"):
        found = headline(report["bench"])
        runtimes = [f"{kind} in {row['runtime']} {row['version']}" for kind, row in found.items()]
        threads = next((row["threads"] for row in found.values()), 1)
        lines.append(f"ms: on {threads} thread{'s' if threads > 1 else ''}, the fastest of each: {', '.join(runtimes)}")
    return lines
