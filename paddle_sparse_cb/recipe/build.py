"""Builds the pieces of a recipe: network, data, `paddle.Model` and plan."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import paddle
from paddle.static import InputSpec

from ..callbacks.ema import EMACallback
from ..callbacks.sync_buffers import SyncBuffers
from ..deploy.lite.optimizer import OptimizeLite
from ..detection import config
from ..detection.build import build_detector
from ..detection.datasets.labels import class_names
from ..detection.evaluation import Evaluation
from ..detection.infer_config import InferConfig, make_infer_config
from ..detection.metric import CocoMAP
from ..detection.network import DetectionNetwork, build_network
from ..detection.weights import LoadedWeights, load_matching, read_weights
from ..errors import InputError
from ..hooks import HookContext
from ..pruning.paddleslim_masks import apply_paddleslim_masks
from ..pruning.plan import PrunePlan
from ..pruning.statistics import measure_sparsity
from ..report.schema import read_report
from ..utils.distributed import rank_zero_info, rank_zero_warning
from ..utils.layers import eval_mode
from .layer_ratios import allocate_plan
from .report_details import collect_details
from .report_hook import WriteReport
from .schema import Recipe
from .smoke import write_annotations
from .sparsity_block import SENSITIVITY

_Function = TypeVar("_Function", bound=Callable[..., Any])


def naming_recipe(function: _Function) -> _Function:
    """Has the InputErrors of a function of a recipe name the recipe's files."""

    @functools.wraps(function)
    def call(recipe: Recipe, *arguments: Any, **keywords: Any) -> Any:
        with config.prefix_errors(recipe.files):
            return function(recipe, *arguments, **keywords)

    return cast(_Function, call)


@dataclass
class Run:
    """A recipe with its network, data and prepared `paddle.Model`.

    Attributes:
        dense_evaluation: what the network found before pruning, until it is written to the output folder.
        commands: the commands that made the result.
    """

    recipe: Recipe
    network: DetectionNetwork
    model: paddle.Model
    train_loader: paddle.io.DataLoader
    eval_loader: paddle.io.DataLoader
    plan: PrunePlan
    report: WriteReport
    infer_config: InferConfig
    dense_evaluation: Evaluation | None = None
    commands: list[str] = field(default_factory=list)

    @property
    def metric(self) -> CocoMAP:
        """The metric of `model`."""
        metric: CocoMAP = self.model._metrics[0]
        return metric

    def records(self, split: str) -> list[dict[str, Any]]:
        """Returns ppdet's records of the images of a data set, `train` or `eval`."""
        loader = self.train_loader if split == "train" else self.eval_loader
        records: list[dict[str, Any]] = loader.dataset.source.roidbs
        return records

    def evaluate(self) -> dict[str, float]:
        """Returns `mAP` and `AP50` of the network as it is; all ranks must call this."""
        rank_zero_info(f"evaluating on {len(self.eval_loader.dataset)} images ...")
        result = self.model.evaluate(self.eval_loader, verbose=0, callbacks=[SyncBuffers()])
        return {name: float(result[name]) for name in ("mAP", "AP50")}

    @property
    def expected_artefacts(self) -> dict[str, Path]:
        """What a sparse recipe makes of its checkpoint, by the names of `HookContext.artefacts`."""
        output = self.recipe.output
        expected = {
            "inference": self.recipe.exported,
            **OptimizeLite(self.recipe.lite_options).files(output, sparse=True),
        }
        if self.recipe.mnn_block is not None:
            expected.update(
                inference_no_nms=output / "inference_no_nms" / "model",
                onnx=output / "model.onnx",
                mnn_dense=output / "model_dense.mnn",
                mnn_sparse=output / "model_sparse.mnn",
            )
        return expected

    @property
    def exports(self) -> dict[str, dict[str, bool]]:
        """The post-processing of each program that a recipe exports, by artefact (see `export_mode`)."""
        options = self.recipe.content.get("export") or {}
        exports = {"inference": {key: options[key] for key in ("post_process", "nms") if key in options}}
        if self.recipe.mnn_block is not None:
            exports["inference_no_nms"] = {"post_process": True, "nms": False}
        return exports

    def detect(self, name: str, inputs: Mapping[str, paddle.Tensor]) -> Any:
        """Computes what the exported program of an artefact must compute."""
        mode = self.network.export_mode(*self.recipe.input_size, **self.exports[name])
        with mode as (detector, _), eval_mode(detector):
            return detector({"scale_factor": None, **inputs})

    @property
    def references(self) -> dict[str, Callable[[Mapping[str, paddle.Tensor]], Any]]:
        """The `references` of `HookContext`."""
        return {name: functools.partial(self.detect, name) for name in self.exports}

    def context(self, weights: Path) -> HookContext:
        """Returns the context of the hooks, with the artefacts that the output folder already holds.

        Args:
            weights: the checkpoint that the network was loaded from.
        """
        recipe = self.recipe
        artefacts = {
            name: path
            for name, path in self.expected_artefacts.items()
            if (path.with_suffix(".pdmodel") if name.startswith("inference") else path).is_file()
        }
        artefacts["pdparams"] = weights
        sparsity = measure_sparsity(self.network, self.plan)
        context = HookContext(
            self.network, recipe.output, self.plan, sparsity, 0.0, artefacts=artefacts, references=self.references
        )
        if recipe.sparsity is not None:
            settings = recipe.pruning_config()
            context.target_ratio = settings.target_ratio(self.plan)
            context.min_sparsity = settings.min_sparsity(self.plan)
        return context


@naming_recipe
def build(recipe: Recipe) -> Run:
    """Builds network, data, model and plan of a recipe, seeded by it.

    Raises:
        InputError: the network or the data cannot be made from the recipe.
    """
    random.seed(recipe.seed)
    np.random.seed(recipe.seed)
    paddle.seed(recipe.seed)
    if recipe.is_smoke:
        write_annotations(recipe)
    detector = build_detector(
        recipe.content,
        recipe.files,
        amp=amp_configs(recipe),
        find_unused_parameters=bool(recipe.content.get("find_unused_parameters", False)),
        labels=recipe.distillation is None or recipe.distillation.labels,
    )
    with config.convert_errors(recipe.files):
        plan = make_recipe_plan(recipe, detector.network)
        infer_config = make_infer_config(recipe.content, class_names(recipe.content), recipe.input_size)
        infer_config.transforms()  # what cannot be used is found before the training
    report = WriteReport(recipe.name, recipe.seed, recipe.model, recipe.input_size, recipe.digest)
    loaders = detector.train_loader, detector.eval_loader
    run = Run(recipe, detector.network, detector.model, *loaders, plan, report, infer_config)
    run.report.details = functools.partial(collect_details, run)
    return run


def build_plan(recipe: Recipe) -> PrunePlan:
    """Returns the plan of a recipe; needs neither data nor weights."""
    with config.convert_errors(recipe.files):
        return make_recipe_plan(recipe, build_network(config.load(recipe.content, recipe.files)))


def make_recipe_plan(recipe: Recipe, network: DetectionNetwork) -> PrunePlan:
    """Applies the rules of a recipe to a forward of the exported input size; a dense recipe prunes nothing."""
    height, width = recipe.input_size
    spec = [InputSpec([1, 3, height, width], "float32"), InputSpec([1, 2], "float32"), InputSpec([1, 1], "int64")]
    rules = recipe.pruning_config()
    skip = network.prediction_layers()
    if (recipe.sparsity or {}).get("skip_stage_ends"):
        skip += network.stage_end_squeezes()
    plan = replace(rules, skip=(*skip, *rules.skip)).make_plan(network, spec)
    if recipe.sparsity is not None:
        return allocate_plan(recipe, plan) if recipe.sparsity.get("scope") == SENSITIVITY else plan
    return PrunePlan(
        tuple(replace(layer, pruned=False, reason=layer.reason or "dense recipe") for layer in plan.layers)
    )


def amp_configs(recipe: Recipe) -> dict[str, Any] | None:
    """Translates PaddleDetection's `amp` keys to the `amp_configs` of `paddle.Model.prepare`."""
    content = recipe.content
    if not content.get("amp", False):
        return None
    lists = {key: content[key] for key in ("custom_white_list", "custom_black_list") if content.get(key)}
    return {
        "level": content.get("amp_level", "O1"),
        "init_loss_scaling": content.get("init_loss_scaling", 1024),
        **lists,
    }


def build_ema(recipe: Recipe) -> list[EMACallback]:
    """Translates PaddleDetection's `use_ema` keys to a callback; an empty list without `use_ema`.

    Raises:
        InputError: a value is out of range.
    """
    content = recipe.content
    use_ema, cycle = content.get("use_ema", False), content.get("cycle_epoch", -1)
    if not isinstance(use_ema, bool):
        raise InputError(f"{recipe.files}: use_ema must be true or false, got {use_ema!r}")
    if not use_ema:
        return []
    if type(cycle) is int and cycle > 0:  # PaddleDetection counts snapshots, whatever the name says
        cycle *= content.get("snapshot_epoch", 1)
    given = {
        key: content[f"ema_{key}"]
        for key in ("decay", "decay_type", "black_list")
        if content.get(f"ema_{key}") is not None
    }
    try:
        return [EMACallback(cycle_epochs=cycle, **given)]
    except InputError as error:
        raise InputError(f"{recipe.files}: use_ema: {error}") from None


@naming_recipe
def load_weights(recipe: Recipe, run: Run, source: str) -> LoadedWeights:
    """Loads weights into the network, with the masks of PaddleSlim if there are any, and prints what was loaded."""
    arrays = read_weights(source)
    with config.prefix_errors(source):
        arrays, masked = apply_paddleslim_masks(arrays)
    loaded = load_matching(run.network, arrays, source)
    rank_zero_info(f"{loaded}; masks of {len(masked)} weights applied" if masked else str(loaded))
    untrained = len({layer.name for layer in run.plan.pruned} & set(loaded.missing_keys))
    if untrained:
        rank_zero_warning(
            f"{untrained} of the {len(run.plan.pruned)} layers to prune start untrained; pruning "
            "assumes a converged model"
        )
    return loaded


def find_weights(recipe: Recipe, export: str | None) -> Path | None:
    """Returns the trained weights of a recipe; None if it has not been trained.

    These are, in this order, `weights` of the recipe, the checkpoint that `export` chooses, the one that the report
    names, and the best one.
    """
    given = recipe.given_weights
    if given is not None:
        return given
    weights = recipe.checkpoint(export or reported_checkpoint(recipe))
    if not weights.is_file():
        return None
    if recipe.content.get("weights"):
        rank_zero_info(f"weights: {recipe.content['weights']} does not exist; using {weights}")
    return weights


def reported_checkpoint(recipe: Recipe) -> str:
    """Returns which checkpoint the report of a recipe is about, `best` or `last`; `best` if there is no report."""
    if not (recipe.output / "report.json").is_file():
        return "best"
    return "last" if read_report(recipe.output).get("checkpoint") == "final" else "best"
