"""A recipe's detector through the export and the quantisation, as its `export:` block says."""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import paddle

from .context import HookContext
from .deploy.export import Export
from .deploy.int8 import QuantizeInt8
from .deploy.program import read_program
from .deploy.rules import check_int8
from .detection.network import DetectionNetwork
from .errors import InputError
from .recipe import Recipe
from .selection import PrunePlan
from .sparsity import measure_sparsity

_CALIBRATION_IMAGES = 32


@dataclass
class ExportDetector:
    """Post-train hook: exports the detector with what follows its heads."""

    network: DetectionNetwork
    recipe: Recipe

    def __call__(self, context: HookContext) -> None:
        """Adds the artefact `inference`, a prefix."""
        options = self.recipe.content.get("export") or {}
        behind_heads = {key: options[key] for key in ("post_process", "nms") if key in options}
        with self.network.exporting(*self.recipe.input_size, **behind_heads) as (detector, specs):
            Export(specs, detector)(context)


@dataclass
class QuantizeDetector:
    """Post-train hook: if the recipe wants it, an INT8 model, measured on the first images of the evaluation."""

    recipe: Recipe
    eval_loader: paddle.io.DataLoader

    def __call__(self, context: HookContext) -> None:
        """Adds the artefact `inference_int8`, a prefix."""
        if self.recipe.int8:
            QuantizeInt8(self._samples(read_program(context.artefacts["inference"]).inputs.keys()))(context)

    def _samples(self, inputs: Collection[str]) -> list[dict[str, np.ndarray]]:
        size, samples = list(self.recipe.input_size), []
        for images, scales, _ in self.eval_loader:
            if list(images.shape[2:]) != size:
                raise InputError(f"{self.recipe.path}: export.int8: EvalReader gives images of "
                                 f"{list(images.shape[2:])}, the exported network takes {size}")
            for image, scale in zip(images.numpy(), scales.numpy()):
                samples.append({"image": image, **({"scale_factor": scale} if "scale_factor" in inputs else {})})
            if len(samples) >= _CALIBRATION_IMAGES:
                break
        return samples[:_CALIBRATION_IMAGES]


def require_int8(network: DetectionNetwork, recipe: Recipe, plan: PrunePlan) -> None:
    """Exports a network before it is trained, to see whether it may be INT8 and sparse.

    Raises:
        InputError: it may not.
    """
    with tempfile.TemporaryDirectory() as folder:
        context = HookContext(network, Path(folder), plan, measure_sparsity(network, plan), 0.0)
        ExportDetector(network, recipe)(context)
        check_int8(str(recipe.path), read_program(context.artefacts["inference"]))
