"""The table of `paddle-sparse bench`, and where the time goes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from ..utils.tables import markdown_table, render_table

PRUNED = "pruned convolutions"
DISTURBED = "*"
LEGEND = (
    "ms: median latency of one image; spread: interquartile range / median; speed-up: (dense - sparse) / sparse, over "
    "dense kernels of the same runtime and over the fastest dense row with as many threads"
)


def bench_headers(rows: Sequence[dict[str, Any]]) -> tuple[tuple[str, ...], str]:
    """Returns the headers and alignments of the columns that these rows need."""
    shown = _columns(rows)
    return tuple(header for header, _ in shown), "".join(align for _, align in shown)


def _columns(rows: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    columns = [
        ("device", "l"),
        ("cores", "l"),
        ("°C", "r"),
        ("file", "l"),
        ("runtime", "l"),
        ("version", "l"),
        ("kernels", "l"),
        ("zeros", "r"),
        ("block", "r"),
        ("precision", "l"),
        ("threads", "r"),
        ("MB", "r"),
        ("ms", "r"),
        ("spread", "r"),
        ("FPS", "r"),
        ("speed-up", "r"),
        ("over fastest dense", "r"),
        ("mAP", "r"),
    ]
    optional = {"device": "device", "cores": "cluster", "°C": "temperature", "file": "file", "mAP": "map"}
    return [
        column
        for column in columns
        if column[0] not in optional or any(row.get(optional[column[0]]) not in ("", None) for row in rows)
    ]


def bench_rows(rows: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """The cells of each row; a disturbed one has a star behind its latency."""
    headers, _ = bench_headers(rows)
    return [tuple(_cells(row)[header] for header in headers) for row in rows]


def _cells(row: dict[str, Any]) -> dict[str, str]:
    return {
        "device": row["device"],
        "cores": row.get("cluster", ""),
        "°C": " -> ".join("?" if one is None else f"{one:.0f}" for one in row.get("temperature") or ()),
        "file": row["file"],
        "runtime": row["runtime"],
        "version": row["version"],
        "kernels": row["kind"],
        "zeros": "-" if row["ratio"] is None else f"{row['ratio']:.1%}",
        "block": "x".join(map(str, row["block"])),
        "precision": row["precision"],
        "threads": str(row["threads"]),
        "MB": f"{row['mb']:.2f}",
        "ms": f"{row['ms']:.2f}{DISTURBED if row['disturbed'] else ''}",
        "spread": f"{row['spread']:.1%}",
        "FPS": f"{1e3 / row['ms']:.1f}",
        "speed-up": signed(row["speedup"]),
        "over fastest dense": signed(row["speedup_fastest"]),
        "mAP": percent(row["map"]),
    }


def percent(fraction: float | None) -> str:
    """A fraction in percent with one digit after the point; `-` for None."""
    return "-" if fraction is None else f"{100 * fraction:.1f}"


def signed(fraction: float | None) -> str:
    """A speed-up in percent with its sign; `-` for None.

    Examples:
        >>> signed(0.384), signed(-0.05), signed(0.0), signed(None)
        ('+38%', '-5%', '0%', '-')
    """
    if fraction is None:
        return "-"
    return "0%" if round(100 * fraction) == 0 else f"{100 * fraction:+.0f}%"


def bench_captions(bench: dict[str, Any]) -> list[str]:
    """The lines below the table: the machine, the columns, and what a reader must know of single rows."""
    rows = bench["rows"]
    here = any(not row["device"] for row in rows) or not rows
    lines = [*([describe_machine(bench["machine"])] if here else []), LEGEND]
    if not here:
        lines.append("cores: those that were asked for; °C: hottest sensor of the processor before and after")
    if any(row["disturbed"] for row in rows):
        what = "by other work on this machine: measure again when it is idle" if here else "(the latency varies much)"
        lines.append(f"{DISTURBED} disturbed {what}")
    noted: dict[str, list[str]] = {}
    for row in rows:
        if row["note"]:
            noted.setdefault(row["note"], []).append(_row_name(row))
    for note, names in noted.items():
        lines.append(note if len(names) == len(rows) else f"{', '.join(dict.fromkeys(names))}: {note}")
    return [*lines, *bench.get("notes", [])]


def _row_name(row: dict[str, Any]) -> str:
    return f"{row['runtime']} {row['kind']} {'x'.join(map(str, row['block']))}"


def describe_machine(machine: dict[str, Any]) -> str:
    """Describes a machine in one line."""
    features = " ".join(machine["features"])
    parts = [machine["cpu"], f"{machine['cores']} CPUs", features, machine["os"]]
    parts.append(f"governor {machine['governor']}" if machine["governor"] else "")
    return f"machine: {', '.join(filter(None, parts))}"


def headline(bench: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns the rows on the smallest number of threads that stand for a run: `dense` and `sparse`.

    `dense` is the fastest dense row, and `sparse` the fastest sparse row of the trained weights. A kind that was not
    measured is missing.
    """
    threads = min((row["threads"] for row in bench["rows"]), default=0)
    found: dict[str, dict[str, Any]] = {}
    for kind in ("dense", "sparse"):
        rows = [row for row in bench["rows"] if row["kind"] == kind and row["threads"] == threads and row["trained"]]
        if rows:
            found[kind] = min(rows, key=lambda row: row["ms"])
    return found


def bench_table(bench: dict[str, Any]) -> str:
    """Renders the result of a benchmark for the terminal.

    Args:
        bench: `machine`, `rows` and `notes`.
    """
    headers, align = bench_headers(bench["rows"])
    return "\n".join([render_table(headers, bench_rows(bench["rows"]), align), *bench_captions(bench)])


def bench_markdown(bench: dict[str, Any]) -> str:
    """Renders the result of a benchmark as Markdown."""
    headers, align = bench_headers(bench["rows"])
    table = markdown_table(headers, bench_rows(bench["rows"]), align)
    return "\n\n".join([table, *bench_captions(bench)])


def layer_summary(layers: dict[str, Any], width: int = 24) -> str:
    """Renders where the time goes: milliseconds by purpose of the layers, dense and in each sparse model.

    Args:
        layers: the content of `layers.json`.
        width: characters of the longest bar.
    """
    sparse = layers["models"][1:]
    sums: dict[str, list[float]] = {}
    for layer in layers["layers"]:
        times = [layer["ms_dense"], *((one["ms"] or 0.0) for one in layer["sparse"])]
        before = sums.setdefault(layer["purpose"], [0.0] * len(times))
        sums[layer["purpose"]] = [a + b for a, b in zip(before, times)]
    total = [sum(column) for column in zip(*sums.values())]
    headers = ["where the time goes", "layers", "dense ms", "share", *map(_model_name, sparse), "dense"]
    counts = Counter(layer["purpose"] for layer in layers["layers"])
    ordered = sorted(sums.items(), key=lambda item: -item[1][0])
    longest = max((times[0] for times in sums.values()), default=0.0) or 1.0
    rows = [
        (
            purpose,
            counts[purpose],
            f"{times[0]:.2f}",
            f"{times[0] / (total[0] or 1.0):.0%}",
            *(f"{one:.2f}" for one in times[1:]),
            "#" * round(width * times[0] / longest),
        )
        for purpose, times in ordered
    ]
    rows.append(("all", sum(counts.values()), f"{total[0]:.2f}", "100%", *(f"{one:.2f}" for one in total[1:]), ""))
    table = render_table(headers, rows, f"lrrr{'r' * len(sparse)}l")
    kept = sum(times[0] for purpose, times in sums.items() if purpose != PRUNED)
    limit = f"; if pruned layers took no time, the model would be {signed(total[0] / kept - 1)} faster" if kept else ""
    return f"{table}\n{layers['runtime']}, one thread; what is not pruned takes {kept:.2f} ms{limit}"


def _model_name(model: dict[str, Any]) -> str:
    return f"{model['ratio']:.0%} {'x'.join(map(str, model['block']))} ms"
