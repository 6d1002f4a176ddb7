"""What `paddle-sparse bench` prints, and whether it fails."""

from __future__ import annotations

import json
from typing import Any

from ..errors import PipelineError
from ..report.bench import bench_captions, bench_table, layer_summary


def render(result: dict[str, Any], as_json: bool) -> str:
    """Renders a result for standard output: the table with its captions, or `machine` and `rows` as JSON."""
    if as_json:
        return json.dumps({key: result[key] for key in ("machine", "rows")}, indent=1, allow_nan=False)
    parts = [bench_table(result)]
    if "layers" in result:
        parts.append(layer_summary(result["layers"]))
    return "\n\n".join(parts)


def render_captions(result: dict[str, Any]) -> str:
    """Renders the lines that `render` shows below the table, one each."""
    return "\n".join(bench_captions(result))


def check_speedup(result: dict[str, Any], least: float) -> None:
    """Checks the best speed-up over the fastest dense row with as many threads.

    Raises:
        PipelineError: it is below `least`, or nothing sparse was measured.
    """
    found = [row for row in result["rows"] if row["kind"] == "sparse" and row["speedup_fastest"] is not None]
    if not found:
        raise PipelineError("--fail-under: no sparse model was measured beside a dense one")
    best = max(found, key=lambda row: row["speedup_fastest"])
    if best["speedup_fastest"] < least:
        raise PipelineError(
            f"--fail-under: the best sparse model ({best['runtime']}, blocks {'x'.join(map(str, best['block']))}, "
            f"{best['threads']} threads) is {best['speedup_fastest']:+.1%} over the fastest dense one, at least "
            f"{least:+.1%} is required{' (disturbed by other work)' if best['disturbed'] else ''}"
        )
