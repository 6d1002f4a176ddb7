"""The hook that reports a run."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import paddle

from ..callbacks.evaluation_log import best_by_sparsity, read_evaluations
from ..deploy.lite.nb import count_convolutions
from ..deploy.verify import describe
from ..hooks import HookContext
from ..report.schema import write_report


@dataclass
class WriteReport:
    """Post-train hook: collects the figures of a run and writes `report.json`, `report.md` and
    `report.html`.

    It may be called several times: before Paddle-Lite's optimizer, so that a run without the optimizer has a report,
    and again after it.

    Attributes:
        recipe: name of the recipe.
        seed: seed of the run.
        model: short name of the network.
        input_size: height and width in pixels.
        digest: digest of the recipe, by which a later run recognizes that a result is up to date.
        dense: evaluation of the network before pruning (`mAP`, `AP50`, `sparsity`); a dense training needs none.
        dense_note: why the network could not be measured before pruning; the report then has no dense row.
        checkpoint: name of the exported checkpoint, `best_model` or `final`.
        details: returns further fields of the report, such as the curves.
    """

    recipe: str
    seed: int
    model: str
    input_size: tuple[int, int]
    digest: str
    dense: dict[str, float] = field(default_factory=dict)
    dense_note: str = ""
    checkpoint: str | None = None
    details: Callable[[HookContext], dict[str, Any]] | None = None

    def __call__(self, context: HookContext) -> None:
        """Writes the files to `context.output`."""
        log = context.output / "evaluations.json"
        write_report(
            {
                "recipe": self.recipe,
                "paddle": paddle.__version__,
                "seed": self.seed,
                "digest": self.digest,
                "checkpoint": self.checkpoint,
                "rows": self._rows(context),
                "dense_note": self.dense_note,
                "layers": context.sparsity.to_dict()["layers"],
                "checks": {name: {**check, "summary": describe(check)} for name, check in context.checks.items()},
                "evaluations": best_by_sparsity(read_evaluations(log), "mAP") if log.is_file() else [],
                "bench": context.bench or None,
                **(self.details(context) if self.details else {}),
            },
            context.output,
        )

    def _rows(self, context: HookContext) -> list[dict[str, Any]]:
        if not context.plan.pruned:
            return [self._row(context, "dense", 0.0, self.dense or context.metrics)]
        sparse = self._row(
            context, "sparse", context.target_ratio, {**context.metrics, "sparsity": context.sparsity.ratio}
        )
        return [sparse] if self.dense_note else [self._row(context, "dense", 0.0, self.dense), sparse]

    def _row(self, context: HookContext, kind: str, target: float, metrics: dict[str, float]) -> dict[str, Any]:
        nb = context.artefacts.get(f"nb_{kind}")
        convolutions = count_convolutions(nb) if nb else None
        return {
            "name": kind,
            "model": self.model,
            "input_size": list(self.input_size),
            "target_sparsity": target,
            "sparsity": metrics.get("sparsity", 0.0),
            "map": _finite(metrics.get("mAP")),
            "ap50": _finite(metrics.get("AP50")),
            "nb_bytes": nb.stat().st_size if nb else None,
            "sparse_convs": convolutions.sparse if convolutions else None,
            "convs": convolutions.total if convolutions else None,
        }


def _finite(value: float | None) -> float | None:
    """None for a figure that was not measured, which JSON represents as null."""
    return None if value is None or not math.isfinite(value) else float(value)
