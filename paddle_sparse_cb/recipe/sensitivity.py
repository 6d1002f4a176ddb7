"""`paddle-sparse sensitivity`: how the loss or the mAP of a recipe suffers when single layers are pruned."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import paddle

from .._version import __version__
from ..detection import config
from ..detection.training_loss import mean_training_loss
from ..errors import InputError
from ..pruning.sensitivity import Sensitivity
from ..pruning.sensitivity_measure import RATIOS, measure_sensitivity
from ..report.sensitivity import sensitivity_chart
from ..utils.distributed import is_distributed
from ..utils.files import write_text
from ..utils.locks import lock_folder
from ..utils.validation import check_count, check_fraction
from .build import Run, build, load_weights, naming_recipe
from .layer_ratios import without_ratios
from .permute import permute_run
from .schema import Recipe
from .sparsity_block import sensitivity_file

METRICS = ("loss", "map")
IMAGES = 128
# Keys of a recipe on which the results do not depend, whatever the metric is; and for each metric.
_IRRELEVANT = (
    "LearningRate",
    "OptimizerBuilder",
    "epoch",
    "export",
    "log_iter",
    "pretrain_weights",
    "save_dir",
    "snapshot_epoch",
    "snapshot_iter",
    "weights",
    "worker_num",
)
_OTHER_DATA = {
    "loss": ("EvalDataset", "EvalReader", "TestDataset", "TestReader"),
    "map": ("TrainDataset", "TrainReader", "TestDataset", "TestReader"),
}


@dataclass(frozen=True)
class SensitivityRequest:
    """What is measured.

    Attributes:
        ratios: the ratios of each layer.
        metric: `loss`, of images of the training data, or `map`, of the evaluation data.
        images: number of training images for the loss; None takes `IMAGES`, or all if there are fewer.
        log: receives a line for each result.

    Raises:
        InputError: the metric is unknown, or a number is out of range.
    """

    ratios: Sequence[float] = RATIOS
    metric: str = "loss"
    images: int | None = None
    log: Callable[[str], None] = lambda line: None

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise InputError(f"--metric must be one of {', '.join(METRICS)}, got {self.metric!r}")
        if self.images is not None:
            check_count("--images", self.images, least=1)
        for ratio in self.ratios:
            check_fraction("--ratio", ratio, least=0.01)


@naming_recipe
def measure_recipe(recipe: Recipe, request: SensitivityRequest) -> tuple[Sensitivity, list[Path]]:
    """Measures each planned layer of a recipe's start weights, and writes a JSON file and a chart.

    The weights are those that `-o weights=` names, or else those that the training starts from. Ratios of single layers
    in the recipe make no difference. Each result is written at once, and the same command goes on with the rest.

    Returns:
        What was measured, and the files.

    Raises:
        InputError: the recipe is dense, or its weights or data cannot be used.
    """
    if is_distributed():
        raise InputError("the sensitivity is measured by one process")
    path = sensitivity_file(None, recipe.output)  # a recipe, which may come from a stranger, names no file to write
    measured, source = _single_process(without_ratios(recipe), request), _weights(recipe)
    with lock_folder(recipe.output):
        run = build(measured)
        if source:
            loaded = load_weights(measured, run, source)
            if loaded.untrained_heads:
                request.log("warning: the prediction heads are untrained: losses and mAP say little")
        else:
            request.log("warning: the weights are untrained: losses and mAP say little")
        permute_run(run)
        evaluate, key = _evaluation(run, request)
        result = measure_sensitivity(
            run.network,
            run.plan,
            evaluate,
            list(request.ratios),
            metric="mAP" if request.metric == "map" else "loss",
            higher_is_better=request.metric == "map",
            path=path,
            key=key,
            log=request.log,
        )
        chart = path.with_suffix(".svg")
        write_text(chart, sensitivity_chart(result.to_dict()))
    read = sensitivity_file(recipe.sparsity, recipe.output)
    if read != path:
        request.log(f"note: the recipe takes its ratios from {read}, not from {path}")
    return result, [path, chart]


def _single_process(recipe: Recipe, request: SensitivityRequest) -> Recipe:
    """Returns a recipe whose training batches need no other process, and are not larger than what is measured."""
    content = copy.deepcopy(recipe.content)
    if request.metric == "loss":
        content["worker_num"] = 0
        reader = content["TrainReader"]
        reader["batch_size"] = min(reader.get("batch_size", 1), request.images or IMAGES)
    # A loss needs boxes, also where the recipe learns from a teacher alone.
    return replace(recipe, content=content, distillation=None)


def _weights(recipe: Recipe) -> str | None:
    if recipe.given_weights is not None:
        return str(recipe.given_weights)
    if recipe.dense is None:
        return recipe.content.get("pretrain_weights")
    weights = recipe.dense.checkpoint("last")
    if not weights.is_file():
        raise InputError(f"{weights}: not trained yet; run: paddle-sparse train {recipe.dense.path}")
    return str(weights)


def _evaluation(run: Run, request: SensitivityRequest) -> tuple[Callable[[Any], float], dict[str, Any]]:
    """Returns the function that evaluates the network, and what its results depend on beside the weights."""
    ignored = (*_IRRELEVANT, *_OTHER_DATA[request.metric])
    content = {name: value for name, value in run.recipe.content.items() if name not in ignored}
    key = {"recipe": content, "paddle": paddle.__version__, "paddle_sparse_cb": __version__}
    if request.metric == "map":
        return lambda network: _mean_average_precision(run), {**key, "data": run.eval_loader.dataset.digest}
    loader = run.train_loader
    if request.images is not None and len(loader.dataset) < request.images:
        raise InputError(
            f"--images: the training data has {len(loader.dataset)} images, {request.images} are asked for"
        )
    epoch = run.recipe.content["epoch"] - 1  # the transforms and the label assigner of the end of the training
    loader.set_epoch(epoch)
    run.network.epoch = epoch
    count = -(-(request.images or IMAGES) // loader.batch_sampler.batch_size)
    batches = list(itertools.islice(iter(loader), count))
    key["data"] = loader.dataset.digest
    return lambda network: mean_training_loss(network, batches), {**key, "batches": len(batches), "epoch": epoch}


def _mean_average_precision(run: Run) -> float:
    with config.prefix_errors("--metric map"):
        return float(run.model.evaluate(run.eval_loader, verbose=0)["mAP"])
