"""The hook that compares the boxes of a recipe's MNN files with those of its exported model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..deploy.mnn.check import source_model
from ..deploy.outputs import Outputs, run_models
from ..errors import PipelineError
from ..hooks import HookContext
from .build import Run

_MAX_SCORE_ERROR = 1e-3
_MAX_EDGE_ERROR = 0.1  # pixels of the network's input


@dataclass
class CompareBoxes:
    """Compares the boxes that MNN's files find in the samples with those of the exported model, after suppression."""

    run: Run

    def __call__(self, context: HookContext) -> None:
        """Adds `mnn_boxes` to the checks if the files were verified: `problems`, `found`, `scope` and `ok`."""
        if not context.checks.get("mnn", {}).get("ok"):
            return
        files = [context.artefacts["mnn_dense"], context.artefacts["mnn_sparse"]]
        problems, count = [], 0
        try:
            runs = run_models(source_model(context), files, context.samples)
            expected, *found = [self._boxes(run, list(runs[0][0])) for run in runs]
        except PipelineError as error:
            problems = [str(error)]
        else:
            count = sum(map(len, expected))
            for file, boxes in zip(files, found):
                lost = sum(
                    _count_missing(one, other) + _count_missing(other, one) for one, other in zip(expected, boxes)
                )
                problems += [f"{file.name}: {lost} boxes differ from those of the exported model"] if lost else []
        context.checks["mnn_boxes"] = {
            "problems": problems,
            "found": f"{count} boxes in {len(context.samples)} images are those of the exported model",
            "scope": f"classes, scores within {_MAX_SCORE_ERROR:g}, edges within {_MAX_EDGE_ERROR:g} pixels",
            "ok": not problems,
        }

    def _boxes(self, outputs: Outputs, names: list[str]) -> list[np.ndarray]:
        """Returns the boxes of each sample after non-maximum suppression; the outputs are boxes and scores."""
        return [self.run.network.suppress(*(sample[name] for name in names)) for sample in outputs]


def _count_missing(boxes: np.ndarray, others: np.ndarray) -> int:
    """Counts the boxes that have no equal among others."""
    near = np.abs(boxes[:, None] - others[None])  # [boxes, others, 6]
    is_same = (near[..., 0] == 0) & (near[..., 1] <= _MAX_SCORE_ERROR) & (near[..., 2:].max(-1) <= _MAX_EDGE_ERROR)
    return int((~is_same.any(axis=1)).sum())
