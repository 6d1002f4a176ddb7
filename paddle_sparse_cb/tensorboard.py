"""Curves of a sparse training for TensorBoard."""

from __future__ import annotations

import os
from collections.abc import Mapping

from .sparsity import SparsityReport


class SparsityWriter:
    """Writes scalars with tensorboardX.

    Args:
        log_dir: the folder for the event file.
        purge_step: the curves of an earlier training in this folder end before this step; None lets them be.
    """

    def __init__(self, log_dir: str | os.PathLike[str], purge_step: int | None = None) -> None:
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(log_dir), purge_step=purge_step)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes values under their tags at an optimizer step."""
        for tag, value in values.items():
            self._writer.add_scalar(tag, value, step)
        self._writer.flush()  # a checkpoint may follow, and after a kill the curves have to reach as far

    def layers(self, step: int, report: SparsityReport) -> None:
        """Writes `sparsity_layer/<structured name>` of each pruned weight."""
        self.scalars(step, {f"sparsity_layer/{layer.name}": layer.ratio for layer in report.layers if layer.pruned})

    def close(self) -> None:
        """Writes out what is left."""
        self._writer.close()
