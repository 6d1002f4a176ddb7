"""What a run made: `report.json` for programs, `report.md` and a table for people."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paddle
from tabulate import tabulate

from ..callbacks.evaluation_log import best_by_sparsity, read_evaluations
from ..deploy.lite.nb import count_convolutions
from ..deploy.verify import describe
from ..errors import InputError
from ..hooks import HookContext
from ..utils.files import write_text

_HEADERS = ("", "model", "input size", "sparsity", "mAP 0.5:0.95", "AP50", ".nb MB", "sparse convolutions")


@dataclass
class WriteReport:
    """Post-train hook: writes `report.json` and `report.md`.

    Called before and after Paddle-Lite, it leaves a report of what there is when Lite's optimizer is missing.

    Attributes:
        recipe: the recipe's name.
        seed: the seed of the run.
        model: a short name of the network.
        input_size: height and width in pixels.
        digest: of the recipe, to tell whether a result is still good.
        dense: evaluation of the network before pruning, with `sparsity`; empty for a dense training.
    """

    recipe: str
    seed: int
    model: str
    input_size: tuple[int, int]
    digest: str
    dense: dict[str, float] = field(default_factory=dict)

    def __call__(self, context: HookContext) -> None:
        """Writes the two files into the context's output folder."""
        rows = [self._row(context, "dense", 0.0, self.dense or context.metrics)]
        if context.plan.pruned:
            final = {**context.metrics, "sparsity": context.sparsity.ratio}
            rows.append(self._row(context, "sparse", context.target_ratio, final))
        log = context.output / "evaluations.json"
        report = {"recipe": self.recipe, "paddle": paddle.__version__, "seed": self.seed, "digest": self.digest,
                  "rows": rows, "layers": context.sparsity.to_dict()["layers"], "checks": context.checks,
                  "evaluations": best_by_sparsity(read_evaluations(log), "mAP") if log.is_file() else []}
        write_text(context.output / "report.json", json.dumps(report, indent=1, allow_nan=False) + "\n")
        write_text(context.output / "report.md", _markdown(report))

    def _row(self, context: HookContext, kind: str, target: float, metrics: dict[str, float]) -> dict[str, Any]:
        nb = context.artefacts.get(f"nb_{kind}")
        convolutions = count_convolutions(nb) if nb else None
        return {"name": kind, "model": self.model, "input_size": list(self.input_size), "target_sparsity": target,
                "sparsity": metrics.get("sparsity", 0.0), "map": _number(metrics.get("mAP")),
                "ap50": _number(metrics.get("AP50")), "nb_bytes": nb.stat().st_size if nb else None,
                "sparse_convs": convolutions.sparse if convolutions else None,
                "convs": convolutions.total if convolutions else None}


def _number(value: float | None) -> float | None:
    """JSON has no NaN: what was not measured is null."""
    return None if value is None or math.isnan(value) else float(value)


def read_report(output: Path) -> dict[str, Any]:
    """Reads `report.json` of an output folder.

    Raises:
        InputError: there is none, or it is damaged.
    """
    path = output / "report.json"
    if not path.is_file():
        raise InputError(f"{path}: no report; train the recipe first")
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        report["digest"], table(report)  # has what is asked of it below
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise InputError(f"{path}: no report of ours: {type(error).__name__} {error}") from None
    return report


def table(report: dict[str, Any], style: str = "simple") -> str:
    """The rows of a report with the columns of the published table.

    Args:
        report: what `report.json` holds.
        style: a table format of `tabulate`, such as `simple` or `github`.
    """
    rows = [(row["name"], row["model"], "x".join(map(str, row["input_size"])), f"{row['sparsity']:.2%}",
             _percent(row["map"]), _percent(row["ap50"]),
             "-" if row["nb_bytes"] is None else f"{row['nb_bytes'] / 1e6:.2f}",
             "-" if row["convs"] is None else f"{row['sparse_convs']} of {row['convs']}") for row in report["rows"]]
    return tabulate(rows, headers=_HEADERS, tablefmt=style, disable_numparse=True,
                    colalign=("left", "left", *["right"] * 6))


def _percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.1f}"


def _markdown(report: dict[str, Any]) -> str:
    checks = [f"- `{name}`: {describe(check)}" for name, check in report["checks"].items()]
    levels = [(f"{row['sparsity']:.2%}", row["epoch"], _percent(row["mAP"])) for row in report["evaluations"]]
    by_sparsity = tabulate(levels, headers=("sparsity", "epoch", "mAP, the best"), tablefmt="github",
                           disable_numparse=True, colalign=("right",) * 3).splitlines() if levels else []
    return "\n".join([f"# {report['recipe']}", "", table(report, "github"), "",
                      f"mAP and AP50 in percent. Paddle {report['paddle']}, seed {report['seed']}. "
                      "The dense `.nb` holds the same weights with dense kernels: its size does not depend on zeros.",
                      *(["", "## On the way", "", *by_sparsity] if levels else []),
                      *(["", "## Zeros, counted again in the files", "", *checks] if checks else []), ""])
