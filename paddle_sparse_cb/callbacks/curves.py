"""`TrainingCurves`: which points of a sparse training are written to TensorBoard, and when."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..pruning.statistics import measure_sparsity
from .tensorboard import SparsityWriter

if TYPE_CHECKING:
    from ..pruning.pruner import GMPPruner


class TrainingCurves:
    """Writes `sparsity/*`, `train/*` and `eval/*` of a training, at most one point per optimizer step.

    Args:
        pruner: the pruner of the training.
        log_dir: folder for the event file.
        log_freq: optimizer steps between two points.
        per_layer: write `sparsity_layer/<structured name>` of each pruned weight as well.
        is_resumed: the training continues the curves of an earlier one from the pruner's step on.
    """

    def __init__(
        self, pruner: GMPPruner, log_dir: str | os.PathLike[str], log_freq: int, per_layer: bool, is_resumed: bool
    ) -> None:
        self.pruner, self.log_freq, self.per_layer = pruner, log_freq, per_layer
        self._writer = SparsityWriter(log_dir, pruner.cur_iteration + 1 if is_resumed else None)
        self._last_step = pruner.cur_iteration
        self._eval_names: list[str] = []

    def add_step(
        self, optimizer: Any, losses: Sequence[float], terms: Sequence[str] = (), is_last: bool = False
    ) -> None:
        """Writes a point of the training if it is due, or if it is the last one.

        Args:
            optimizer: the optimizer, for the learning rate.
            losses: the losses of the last training batch. hapi's `logs` cannot be read at the end of a training: an
                evaluation overwrites the losses in it.
            terms: the names of the last ones among them, which a `Distillation` added.
            is_last: write the point even if it is not due.
        """
        step = self.pruner.cur_iteration
        # The step stays the same for the micro-batches of a gradient accumulation and at the end of the training.
        if step == self._last_step or (step % self.log_freq and not is_last):
            return
        self._last_step = step
        values = {"sparsity/target": self.pruner.overall_ratio, "train/lr": float(optimizer.get_lr())}
        if self.per_layer:
            report = measure_sparsity(self.pruner.model, self.pruner.plan)
            values["sparsity/actual"] = report.ratio
            self._writer.layers(step, report)
        else:
            values["sparsity/actual"] = self.pruner.sparsity()
        if losses:
            values["train/loss"] = sum(losses)
        if terms and len(losses) >= len(terms):
            named = dict(zip(terms, losses[-len(terms) :]))
            values["train/distillation"] = sum(named.values())
            values.update({f"train/distillation/{name}": value for name, value in named.items()})
        self._writer.scalars(step, values)

    def begin_evaluation(self, logs: Mapping[str, Any]) -> None:
        """Notes which of the logged values belong to an evaluation."""
        self._eval_names = [name for name in logs.get("metrics", []) if name != "loss"]

    def add_evaluation(self, logs: Mapping[str, Any]) -> None:
        """Writes `eval/<metric>`, such as `eval/mAP`."""
        values = {
            f"eval/{name}": float(logs[name]) for name in self._eval_names if isinstance(logs.get(name), (int, float))
        }
        self._writer.scalars(self.pruner.cur_iteration, values)

    def close(self) -> None:
        """Closes the event file."""
        self._writer.close()
