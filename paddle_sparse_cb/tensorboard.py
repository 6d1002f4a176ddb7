"""Curves of a sparse training for TensorBoard."""

from __future__ import annotations

import os
from collections.abc import Mapping

from .sparsity import SparsityReport


class SparsityWriter:
    """Writes scalars with tensorboardX.

    Args:
        log_dir: the folder for the event file.
    """

    def __init__(self, log_dir: str | os.PathLike[str]) -> None:
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(log_dir))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes values under their tags at an optimizer step."""
        for tag, value in values.items():
            self._writer.add_scalar(tag, value, step)

    def layers(self, step: int, report: SparsityReport) -> None:
        """Writes `sparsity_layer/<structured name>` of each pruned weight."""
        self.scalars(step, {f"sparsity_layer/{layer.name}": layer.ratio for layer in report.layers if layer.pruned})

    def close(self) -> None:
        """Writes out what is left."""
        self._writer.close()
