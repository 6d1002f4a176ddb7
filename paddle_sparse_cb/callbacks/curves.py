"""`TrainingCurves`: which points of a training are written for TensorBoard and VisualDL, and when."""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Mapping
from dataclasses import asdict
from numbers import Real
from typing import TYPE_CHECKING, Any

from ..pruning.optimizer_hook import OptimizerHook
from ..pruning.statistics import count_zeros
from ..utils.distributed import is_rank_zero
from ..utils.tables import markdown_table
from ..utils.validation import check_count, check_flag, check_path
from .session import FitCallback

if TYPE_CHECKING:
    from .tensorboard import SparsityWriter
    from .visualdl import VisualDLWriter

_CHARTS = {
    "sparsity": {
        "zeros: actual and target": ["Multiline", ["sparsity/actual", "sparsity/target"]],
        "weights that changed sides": ["Multiline", ["pruning/newly_pruned", "pruning/regrown"]],
        "smallest magnitude kept: median and range of the layers": [
            "Margin",
            ["pruning/threshold", "pruning/threshold_least", "pruning/threshold_most"],
        ],
    },
    "training": {
        "losses": ["Multiline", ["train/loss"]],  # and all tags that begin with it
        "evaluations": ["Multiline", ["eval/"]],
    },
}


class TrainingCurves(FitCallback):
    """Writes the curves of a training, sparse or dense, for TensorBoard.

    A point is written every few optimizer steps, before the first one and after the last one. The step is the optimizer
    step. Values that are not finite are left out. Only rank 0 writes.

    | tag | content |
    |---|---|
    | `sparsity/actual`, `sparsity/target` | counted zeros of the weights to prune, and what the schedule asks for |
    | `sparsity/layers` | a histogram of the sparsities of the layers, at each pruning step |
    | `sparsity_layer/<weight>` | the sparsity of each weight to prune, with `per_layer` |
    | `pruning/newly_pruned`, `pruning/regrown` | weights that changed sides in a pruning step |
    | `pruning/threshold`, `_least`, `_most` | the smallest magnitude that the layers keep: median, least, most |
    | `train/loss`, `train/lr` | the sum of the losses, and the learning rate |
    | `train/<loss>` | each loss, if the loss function has a list of their `names` |
    | `train/distillation`, `train/distillation/<term>` | the terms that a `Distillation` adds: their sum, and each |
    | `eval/loss`, `eval/<metric>` | the mean of the losses of an evaluation, and its metrics |

    Actual and target sparsity are one chart under Custom Scalars, the settings are compared under HParams, and the plan
    is a table under Text.

    Args:
        log_dir: folder of the event file.
        log_freq: optimizer steps between two points.
        per_layer: write a curve for each pruned weight as well.
        visualdl: write the scalars for VisualDL as well, to the same folder.
        baseline: the metrics of an evaluation before the training, as `model.evaluate` returns them; written at step 0.
            The loss, for which hapi returns that of the last batch, is left out.
        settings: settings of the run beside those of pruner and optimizer, for HParams.

    Raises:
        InputError: when created, if an argument is of the wrong type; at train begin, if VisualDL is not installed.

    Examples:
        >>> import paddle, tempfile
        >>> from paddle_sparse_cb import SparsityCallback, TrainingCurves
        >>> data = paddle.io.TensorDataset([paddle.rand([32, 8]), paddle.randint(0, 4, [32, 1])])
        >>> network = paddle.nn.Linear(8, 4)
        >>> model = paddle.Model(network)
        >>> model.prepare(paddle.optimizer.SGD(0.1, parameters=network.parameters()), paddle.nn.CrossEntropyLoss())
        >>> sparsity = SparsityCallback(pruning_epochs=1, tunning_epochs=1, prune_params_type=None)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     curves = TrainingCurves(folder, baseline=model.evaluate(data, batch_size=8, verbose=0))
        ...     model.fit(data, data, epochs=2, batch_size=8, verbose=0, callbacks=[sparsity, curves])
    """

    def __init__(
        self,
        log_dir: str | os.PathLike[str],
        log_freq: int = 20,
        per_layer: bool = False,
        visualdl: bool = False,
        baseline: Mapping[str, Any] | None = None,
        settings: Mapping[str, bool | float | str] | None = None,
    ) -> None:
        super().__init__()
        self.log_dir, self.log_freq = check_path("log_dir", log_dir), check_count("log_freq", log_freq, least=1)
        self.per_layer, self.visualdl = check_flag("per_layer", per_layer), check_flag("visualdl", visualdl)
        self.baseline, self.settings = dict(baseline or {}), dict(settings or {})
        self._writer: SparsityWriter | None = None
        self._visualdl: VisualDLWriter | None = None
        self._step = self._last_step = self._mask_updates = 0
        self._losses: list[float] = []  # of the last training batch
        self._eval_names: list[str] = []
        self._eval_losses: list[tuple[float, int]] = []  # of each batch: the sum of its losses, and its samples

    def begin_training(self) -> None:
        """Opens the event file, and writes the point before the first step unless the training is resumed."""
        session, saved = self.session, self.session.saved("curves_step")
        self._step = session.pruner.cur_iteration if session.pruner else saved if type(saved) is int else 0
        self._last_step = -1 if session.resume is None else self._step
        self._losses, self._mask_updates = [], 0
        OptimizerHook.of(self.model._optimizer).add(self._count_step)
        if not is_rank_zero():
            return
        from .tensorboard import SparsityWriter  # tensorboardX takes time to import

        self._writer = SparsityWriter(self.log_dir, self._step + 1 if session.resume else None)
        if self.visualdl:
            from .visualdl import VisualDLWriter

            self._visualdl = VisualDLWriter(self.log_dir)
        self._writer.layout(_CHARTS)
        names = [f"eval/{name}" for name in self.params["metrics"]]
        self._writer.hyperparameters(self._settings(), ["sparsity/actual", "train/loss", *names])
        if session.resume is None:
            self._begin_curves()

    def _begin_curves(self) -> None:
        """Writes the point at step 0, with the result of an earlier evaluation, and the plan."""
        pruner = self.session.pruner
        if pruner is not None and self._writer is not None:
            rows = [
                (layer.name, "x".join(map(str, layer.shape)), "pruned" if layer.pruned else layer.reason)
                for layer in pruner.plan.layers
            ]
            self._writer.text(0, "plan", markdown_table(("weight", "shape", "status"), rows, "lll"))
        self._add_point({f"eval/{name}": value for name, value in self.baseline.items() if name != "loss"})

    def _settings(self) -> dict[str, Any]:
        """What distinguishes this run from others, for HParams."""
        optimizer, pruner, data = self.model._optimizer, self.session.pruner, self.session.identity.get("data", {})
        found: dict[str, Any] = {
            "optimizer": type(optimizer).__name__,
            "learning_rate": float(optimizer.get_lr()),
            "batch_size": data.get("batch_size"),
            "epochs": self.params.get("epochs"),
        }
        if pruner is not None:
            block = "x".join(map(str, pruner.sparse_block))
            found |= {**asdict(pruner.schedule), "scope": pruner.scope, "regrow": pruner.regrow, "sparse_block": block}
        return {**{name: value for name, value in found.items() if value is not None}, **self.settings}

    def state(self) -> dict[str, Any]:
        """Returns the completed optimizer steps, where the curves of a resumed training continue."""
        return {"curves_step": self._step}

    def _count_step(self) -> None:
        self._step += 1

    def on_train_batch_end(self, step: int, logs: Any = None) -> None:
        """Writes a point every `log_freq` steps, and what a mask update has changed."""
        losses = (logs or {}).get("loss", [])
        self._losses = list(losses) if isinstance(losses, (list, tuple)) else [losses]
        if self._writer is not None:
            self._add_mask_update()
            # The step stays the same for the micro-batches of a gradient accumulation.
            if self._step != self._last_step and self._step % self.log_freq == 0:
                self._add_point()

    def _add_mask_update(self) -> None:
        recorder = self.session.mask_recorder
        if recorder is None or recorder.updates == self._mask_updates or self._writer is None:
            return
        self._mask_updates, update, thresholds = recorder.updates, recorder.last, recorder.thresholds()
        if not thresholds:  # a resumed training updates its masks in the stable phase too, when there are none
            return
        self._writer.fractions(update.step, "sparsity/layers", update.ratios)
        values: dict[str, float] = {
            "pruning/newly_pruned": update.newly_pruned,
            "pruning/regrown": update.regrown,
            "pruning/threshold": statistics.median(thresholds),
            "pruning/threshold_least": min(thresholds),
            "pruning/threshold_most": max(thresholds),
        }
        self._scalars(values)

    def _add_point(self, more: Mapping[str, Any] | None = None) -> None:
        """Writes the values of the present step."""
        self._last_step, pruner = self._step, self.session.pruner
        values: dict[str, Any] = {"train/lr": float(self.model._optimizer.get_lr())}
        if pruner is not None:
            zeros = count_zeros(pruner.weights)
            actual = sum(zeros) / sum(weight.size for weight in pruner.weights)
            values |= {"sparsity/actual": actual, "sparsity/target": pruner.overall_ratio}
            if self.per_layer:
                layers = zip(pruner.plan.pruned, pruner.weights, zeros)
                values |= {f"sparsity_layer/{layer.name}": count / weight.size for layer, weight, count in layers}
        self._scalars({**values, **self._loss_values(), **(more or {})})

    def _loss_values(self) -> dict[str, float]:
        """The losses of the last batch: their sum, and by name those of the network and those of a `Distillation`."""
        names, terms = self.session.loss_names, self.session.loss_terms
        own = self._losses[: len(self._losses) - len(terms)]
        distilled = dict(zip(terms, self._losses[len(own) :]))
        values = {"train/loss": sum(self._losses)} if self._losses else {}
        if len(names) == len(own) > 1:
            values |= {f"train/{name}": loss for name, loss in zip(names, own)}
        if distilled:
            values["train/distillation"] = sum(distilled.values())
            values |= {f"train/distillation/{name}": loss for name, loss in distilled.items()}
        return values

    def _scalars(self, values: Mapping[str, Any]) -> None:
        """Writes the values that are finite numbers, those in a list as their sum."""
        sums = {tag: sum(value) if isinstance(value, (list, tuple)) else value for tag, value in values.items()}
        finite = {tag: float(one) for tag, one in sums.items() if isinstance(one, Real) and math.isfinite(one)}
        for writer in (self._writer, self._visualdl):
            if writer is not None:
                writer.scalars(self._step, finite)

    def on_eval_begin(self, logs: Any = None) -> None:
        """Notes which of the logged values belong to the evaluation."""
        self._eval_names = [name for name in (logs or {}).get("metrics", []) if name != "loss"]
        self._eval_losses = []

    def on_eval_batch_end(self, step: int, logs: Any = None) -> None:
        """Notes the losses of the batch: hapi keeps those of the last batch only."""
        losses = (logs or {}).get("loss")
        if isinstance(losses, (list, tuple)):
            self._eval_losses.append((sum(losses), (logs or {}).get("batch_size", 1)))

    def on_eval_end(self, logs: Any = None) -> None:
        """Writes `eval/loss` and `eval/<metric>`, such as `eval/mAP`."""
        values = {f"eval/{name}": (logs or {}).get(name) for name in self._eval_names}
        samples = sum(count for _, count in self._eval_losses)
        if samples:
            values["eval/loss"] = sum(loss * count for loss, count in self._eval_losses) / samples
        self._scalars(values)

    def end_training(self) -> None:
        """Writes the last point and the sparsities of the layers."""
        if self._writer is None:
            return
        pruner = self.session.pruner
        if pruner is not None:
            ratios = [zeros / weight.size for zeros, weight in zip(count_zeros(pruner.weights), pruner.weights)]
            self._writer.fractions(self._step, "sparsity/layers", ratios)
        self._writer.end()
        if self._step != self._last_step:
            self._add_point()
        self._writer.flush()  # a hook may write another file, and TensorBoard does not return to this one

    def close(self) -> None:
        """Closes the files, also after an exception."""
        hook = OptimizerHook.attached_to(self.model._optimizer)
        if hook is not None:
            hook.remove(self._count_step)
        for writer in (self._writer, self._visualdl):
            if writer is not None:
                writer.close()
        self._writer = self._visualdl = None
