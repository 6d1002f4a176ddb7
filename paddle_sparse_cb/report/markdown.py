"""`report.md`: the table, the best evaluations and the verification of a run."""

from __future__ import annotations

from typing import Any

from ..utils.tables import markdown_table
from .bench import bench_markdown, percent
from .checks import checks_in_words
from .table import captions, table_headers, table_rows


def report_markdown(report: dict[str, Any]) -> str:
    """Renders a report as Markdown.

    Args:
        report: the content of `report.json`.
    """
    headers, align = table_headers(report)
    blocks = [
        f"# {report['recipe']}",
        markdown_table(headers, table_rows(report), align),
        *captions(report),
        f"mAP and AP50 in percent. Paddle {report['paddle']}, seed {report['seed']}. The dense `.nb` holds the same "
        "weights with dense kernels; its size does not depend on the number of zeros.",
    ]
    if report["evaluations"]:
        rows = [(f"{row['sparsity']:.2%}", row["epoch"], percent(row["mAP"])) for row in report["evaluations"]]
        blocks += ["## Best mAP at each sparsity", markdown_table(("sparsity", "epoch", "best mAP"), rows, "rrr")]
    if report.get("bench"):
        blocks += ["## Latency", bench_markdown(report["bench"])]
    if report["checks"]:
        checks = [
            f"- **{check.title}**: {'ok' if check.ok else 'FAILED'}. {check.text}"
            for check in checks_in_words(report["checks"])
        ]
        blocks += ["## Verification", "The zeros, counted again in each file:", "\n".join(checks)]
    return "\n\n".join(blocks) + "\n"
