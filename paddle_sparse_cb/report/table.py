"""The table of a report, with the columns of PicoDet's published table."""

from __future__ import annotations

from typing import Any

from ..utils.tables import render_table

HEADERS = ("", "model", "input size", "sparsity", "mAP 0.5:0.95", "AP50", ".nb MB", "sparse convolutions")
ALIGN = "llrrrrrr"

_CHECKPOINTS = {"best_model": "best mAP at the target sparsity", "final": "end of the training"}


def report_table(report: dict[str, Any]) -> str:
    """Renders the rows of a report for the terminal, followed by its captions.

    Args:
        report: the content of `report.json`.
    """
    return "\n".join([render_table(HEADERS, table_rows(report), ALIGN), *captions(report)])


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
        )
        for row in report["rows"]
    ]


def captions(report: dict[str, Any]) -> list[str]:
    """The lines below the table: the exported checkpoint, and why there is no dense row."""
    lines = []
    checkpoint = report.get("checkpoint")
    if checkpoint:
        meaning = _CHECKPOINTS.get(checkpoint)
        lines.append(f"Exported checkpoint: {checkpoint}" + (f" ({meaning})" if meaning else ""))
    if report.get("dense_note"):
        lines.append(f"No dense row: {report['dense_note']}")
    return lines


def percent(fraction: float | None) -> str:
    """A fraction in percent with one digit after the point; `-` for None."""
    return "-" if fraction is None else f"{100 * fraction:.1f}"
