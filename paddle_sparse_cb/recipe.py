"""A recipe, which is a YAML file in ppdet's format with one block for the sparsity, to a run.

The sparsity block is `Sparsity:`, with the arguments of `SparsityCallback`. PaddleDetection's `UnstructuredPruner:`
is read as the same; where both are given, `Sparsity:` is the later word.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import random
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Sequence

import numpy as np
import paddle
import yaml
from paddle.static import InputSpec

from ._version import __version__
from .callback import SparsityCallback
from .checkpoint import Checkpoints
from .context import Hook, HookContext
from .deploy.export import Export
from .deploy.lite import OptimizeLite
from .deploy.verify import require, verify
from .detection import config
from .detection.data import make_loader
from .detection.metric import CocoMAP
from .detection.network import (DetectionLoss, DetectionNetwork, EpochToNetwork, make_network, make_optimizer)
from .detection.weights import load_pretrained
from .errors import InputError, did_you_mean
from .progress import TimeLeft
from .report import WriteReport, read_report, table
from .selection import PlannedLayer, PrunePlan, make_plan
from .sparsity import measure_sparsity, named_weights

# Arguments that a recipe cannot give: objects, and what follows from the recipe itself.
_NOT_IN_A_RECIPE = {"self", "plan", "skip_params_func", "post_train", "log_dir", "save_dir"}
_SPARSITY_KEYS = frozenset(inspect.signature(SparsityCallback.__init__).parameters) - _NOT_IN_A_RECIPE


@dataclass(frozen=True)
class Recipe:
    """A recipe as read.

    Attributes:
        path: the file.
        content: ppdet's blocks, merged.
        sparsity: arguments of `SparsityCallback`; None for a dense training.
    """

    path: Path
    content: dict[str, Any]
    sparsity: dict[str, Any] | None

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return self.path.stem

    @property
    def output(self) -> Path:
        """The folder for all that the recipe makes: below `save_dir`, by the recipe's name."""
        return Path(self.content.get("save_dir", "output")) / self.name

    @property
    def seed(self) -> int:
        """The seed of all random numbers."""
        return int(self.content.get("seed", 0))

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of the exported network, from `TestReader.inputs_def.image_shape`."""
        shape = self.content.get("TestReader", {}).get("inputs_def", {}).get("image_shape")
        if not isinstance(shape, list) or not all(isinstance(size, int) and size > 0 for size in shape[-2:]):
            raise InputError(f"{self.path}: TestReader.inputs_def.image_shape is [3, height, width], the fixed size of "
                             f"the exported network, got {shape!r}")
        return shape[-2], shape[-1]

    @property
    def model(self) -> str:
        """A short name of the network, for the report."""
        backbone = self.content.get(self.content["architecture"], {}).get("backbone", "")
        scale = self.content.get(backbone, {}).get("scale", "")
        return f"{self.content['architecture']} {backbone} x{scale}"

    @property
    def digest(self) -> str:
        """Tells two recipes apart, and the versions that ran them."""
        what = [self.content, self.sparsity, paddle.__version__, __version__]
        return hashlib.sha256(json.dumps(what, sort_keys=True, default=vars).encode()).hexdigest()


def read_recipe(path: str | os.PathLike[str], slim_config: str | None = None,
                options: Sequence[str] = ()) -> Recipe:
    """Reads a recipe.

    Args:
        path: the YAML file.
        slim_config: a second one to lay over it, such as PaddleDetection's slim files.
        options: `key=value` or `Block.key=value`, as PaddleDetection's `-o` takes them.

    Raises:
        InputError: a file is missing or no recipe, or the sparsity block has an unknown key.
    """
    content = config.read_with_bases(path)
    if slim_config:
        content = config.merge(config.read_with_bases(slim_config), content)
    for option in options:
        content = config.merge(_option(option), content)
    if "architecture" not in content:
        raise InputError(f"{path}: no recipe: it has no 'architecture'")
    blocks = [content.pop(block) for block in ("UnstructuredPruner", "Sparsity") if block in content]
    for block in blocks:
        if not isinstance(block, dict):
            raise InputError(f"{path}: the sparsity block is a mapping, got {block!r}")
        for key in block:
            if key not in _SPARSITY_KEYS:
                raise InputError(f"{path}: unknown key {key!r} in Sparsity; {did_you_mean(str(key), _SPARSITY_KEYS)}")
    sparsity = {key: value for block in blocks for key, value in block.items()} if blocks else None
    return Recipe(Path(path), content, sparsity)


def _option(option: str) -> dict[str, Any]:
    keys, equals, value = option.partition("=")
    if not equals or not keys:
        raise InputError(f"-o {option}: an option is key=value or Block.key=value")
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError:
        raise InputError(f"-o {option}: {value!r} is no YAML value") from None
    for key in reversed(keys.split(".")):
        parsed = {key: parsed}
    return parsed


def _say(message: str) -> None:
    if paddle.distributed.get_rank() == 0:
        print(message, flush=True)


def _print_table(context: HookContext) -> None:
    """Post-train hook: the table and where things lie."""
    print(f"\n{table(read_report(context.output))}\n")
    for name in ("report.md", "report.json", "tensorboard", "checkpoints", "inference", "model_dense.nb",
                 "model_sparse.nb"):
        if (context.output / name).exists():
            print(f"  {context.output / name}")


def train(recipe: Recipe) -> None:
    """Runs a recipe from its start weights to its report.

    Under `paddle.distributed.launch` all ranks call this; rank 0 writes.

    Raises:
        InputError: the recipe, its data or its weights cannot be used.
        StepError: a step after the training failed, or what came out does not hold the promise.
    """
    if recipe.sparsity is not None:
        SparsityCallback(**recipe.sparsity)  # finds bad values before anything long is started
    source = _start_weights(recipe)
    run = _build(recipe, source)
    if recipe.sparsity is None:
        _fit(run, [])
        _call(_hooks(run), HookContext(run.network, recipe.output, run.plan,
                                       measure_sparsity(run.network, run.plan), 0.0))
        return
    run.plan.require_layers()
    run.report.dense = {**run.evaluate(), "sparsity": measure_sparsity(run.network, run.plan).ratio}
    _say(f"before pruning: mAP {run.report.dense['mAP']:.4f}, AP50 {run.report.dense['AP50']:.4f}")
    _fit(run, [SparsityCallback(**{**recipe.sparsity, "skip": ()}, plan=run.plan, save_dir=recipe.output,
                                log_dir=recipe.output / "tensorboard", post_train=_hooks(run))])


@dataclass
class _Run:
    """A recipe's pieces, made."""

    recipe: Recipe
    network: DetectionNetwork
    model: paddle.Model
    train_loader: paddle.io.DataLoader
    eval_loader: paddle.io.DataLoader
    plan: PrunePlan
    report: WriteReport

    def evaluate(self) -> dict[str, float]:
        """mAP and AP50 of the network as it is; all ranks take part."""
        _say(f"evaluating on {len(self.eval_loader.dataset)} images ...")
        result = self.model.evaluate(self.eval_loader, verbose=0)
        return {name: float(result[name]) for name in ("mAP", "AP50")}


@dataclass
class _Evaluate:
    """Post-train hook: measures the finalized network."""

    run: _Run
    every_rank = True

    def __call__(self, context: HookContext) -> None:
        context.metrics.update(self.run.evaluate())


def _build(recipe: Recipe, source: str | None) -> _Run:
    """Makes network, data and model, with the weights of a source."""
    _seed(recipe.seed)
    registry = config.load(recipe.content, str(recipe.path))
    network = make_network(registry)
    loaders = make_loader(registry, "Train"), make_loader(registry, "Eval")
    if source:
        _say(str(load_pretrained(network, source)))
    else:
        _say("warning: starting from untrained weights; pruning assumes a converged model")
    report = WriteReport(recipe.name, recipe.seed, recipe.model, recipe.input_size, recipe.digest)
    return _Run(recipe, network, _prepare(recipe, network, *loaders), *loaders, _plan(recipe, network), report)


def _fit(run: _Run, callbacks: list[paddle.callbacks.Callback]) -> None:
    content = run.recipe.content
    snapshot = int(content.get("snapshot_epoch", 1))
    common = [EpochToNetwork(), TimeLeft(run.recipe.name), Checkpoints(run.recipe.output / "checkpoints", snapshot)]
    verbose = 0 if paddle.distributed.get_rank() else 1 if sys.stdout.isatty() else 2
    run.model.fit(run.train_loader, run.eval_loader, epochs=int(content["epoch"]), eval_freq=snapshot,
                  verbose=verbose, log_freq=int(content.get("log_iter", 20)), callbacks=[*common, *callbacks])


def _hooks(run: _Run) -> list[Hook]:
    """What follows a training, in order. The report is written before Lite too, in case its optimizer is missing."""
    measured: list[Hook] = [_Evaluate(run), _note_weights]
    if run.recipe.sparsity is None:
        return [*measured, run.report, _print_table]
    return [*measured, _export(run.recipe, run.network), run.report, *_lite_hooks(run)]


def _lite_hooks(run: _Run) -> list[Hook]:
    return [OptimizeLite(), verify, run.report, _print_table, require]


def _call(hooks: Sequence[Hook], context: HookContext) -> None:
    for hook in hooks:
        if paddle.distributed.get_rank() == 0 or getattr(hook, "every_rank", False):
            hook(context)


def _start_weights(recipe: Recipe) -> str | None:
    """Where the weights come from; the dense recipe of a `recipe:` is run first unless its result is there."""
    source = recipe.content.get("pretrain_weights")
    if not source or not str(source).startswith("recipe:"):
        return source
    dense = read_recipe(recipe.path.parent / source[len("recipe:"):])
    save_dir = recipe.content.get("save_dir")
    if save_dir:
        dense.content["save_dir"] = save_dir
    weights = dense.output / "checkpoints" / "final.pdparams"
    if weights.is_file() and (dense.output / "report.json").is_file() \
            and read_report(dense.output)["digest"] == dense.digest:
        _say(f"using the dense model of {dense.path} in {dense.output}")
    else:
        _say(f"training the dense model first, with {dense.path}")
        train(dense)
        if paddle.distributed.get_world_size() > 1:
            paddle.distributed.barrier()  # rank 0 has written what all read
    return str(weights)


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    paddle.seed(seed)


def _prepare(recipe: Recipe, network: DetectionNetwork, train_loader: paddle.io.DataLoader,
             eval_loader: paddle.io.DataLoader) -> paddle.Model:
    model = paddle.Model(network, inputs=network.input_spec())
    if paddle.distributed.get_world_size() > 1:
        # hapi's own wrapper cannot be told that some parameters get no gradient.
        model._adapter.ddp_model = paddle.DataParallel(
            network, find_unused_parameters=bool(recipe.content.get("find_unused_parameters", False)))
    image_ids = [int(record["im_id"][0]) for record in eval_loader.dataset.roidbs]
    metric = CocoMAP(eval_loader.dataset.get_anno(), image_ids)
    model.prepare(make_optimizer(network, len(train_loader)), DetectionLoss(), metric)
    return model


def _plan(recipe: Recipe, network: DetectionNetwork) -> PrunePlan:
    """The plan of a recipe: its rules on a forward of the exported size; nothing is pruned in a dense one."""
    if recipe.sparsity is None:
        return PrunePlan(tuple(PlannedLayer(name, tuple(weight.shape), False, "dense recipe")
                               for name, _, weight in named_weights(network)))
    height, width = recipe.input_size
    spec = [InputSpec([1, 3, height, width], "float32"), InputSpec([1, 2], "float32"), InputSpec([1, 1], "int64")]
    skip = recipe.sparsity.get("skip", network.prediction_layers())
    return make_plan(network, spec, skip=skip,
                     prune_params_type=recipe.sparsity.get("prune_params_type", "conv1x1_only"))


@dataclass
class _ExportDetector(Export):
    """Post-train hook: exports the detector with what follows its heads, as the recipe's `export:` block says."""

    post_process: bool = True
    nms: bool = True

    def __call__(self, context: HookContext) -> None:
        before = self.network.export_post_process, self.network.export_nms
        self.network.export_post_process, self.network.export_nms = self.post_process, self.nms
        try:
            super().__call__(context)
        finally:
            self.network.export_post_process, self.network.export_nms = before


def _export(recipe: Recipe, network: DetectionNetwork) -> Export:
    options = recipe.content.get("export") or {}
    return _ExportDetector(network.export_spec(*recipe.input_size), network.detector,
                           bool(options.get("post_process", True)), bool(options.get("nms", True)))


def _note_weights(context: HookContext) -> None:
    """Post-train hook: the last checkpoint is an artefact, to be verified with the others."""
    context.artefacts["pdparams"] = context.output / "checkpoints" / "final.pdparams"


STEPS = ("eval", "export", "optimize", "verify")


def step(recipe: Recipe, name: str) -> None:
    """Runs one step after the training again, on what the recipe's training left.

    Args:
        recipe: a trained recipe.
        name: `eval`, `export`, `optimize` (with the check and the report) or `verify`.

    Raises:
        InputError: the recipe has not been trained.
        StepError: the step failed.
    """
    weights = recipe.output / "checkpoints" / "final.pdparams"
    if not weights.is_file():
        raise InputError(f"{weights}: nothing trained here yet; run: paddle-sparse train {recipe.path}")
    run = _build(recipe, str(weights))
    context = HookContext(run.network, recipe.output, run.plan, measure_sparsity(run.network, run.plan),
                          (recipe.sparsity or {}).get("ratio", 0.75 if recipe.sparsity is not None else 0.0))
    _note_weights(context)
    for artefact, file in {"nb_dense": "model_dense.nb", "nb_sparse": "model_sparse.nb"}.items():
        if (recipe.output / file).is_file() and name != "export":
            context.artefacts[artefact] = recipe.output / file
    prefix = recipe.output / "inference" / "model"
    if name in ("optimize", "verify"):
        if not prefix.with_suffix(".pdmodel").is_file():
            raise InputError(f"{prefix}.pdmodel: not exported yet; run: paddle-sparse export {recipe.path}")
        context.artefacts["inference"] = prefix
        for row in read_report(recipe.output)["rows"]:
            metrics = {"mAP": row["map"], "AP50": row["ap50"], "sparsity": row["sparsity"]}
            if row["name"] == "dense":
                run.report.dense = metrics
            else:
                context.metrics.update(metrics)
    if name == "eval":
        result = run.evaluate()
        print(f"mAP {result['mAP']:.4f}, AP50 {result['AP50']:.4f}, sparsity {context.sparsity.ratio:.4%}")
        return
    _call({"export": [_export(recipe, run.network)], "verify": [verify, _print_checks, require],
           "optimize": _lite_hooks(run)}[name], context)


def _print_checks(context: HookContext) -> None:
    """Post-train hook: a line for each check."""
    for name, check in context.checks.items():
        said = ", ".join(f"{key} {value}" for key, value in check.items() if key not in ("ok", "wrong"))
        print(f"{name}: {'holds' if check['ok'] else 'DOES NOT HOLD'} ({said})")


def plan(recipe: Recipe) -> PrunePlan:
    """What a recipe prunes, without data or weights."""
    return _plan(recipe, make_network(config.load(recipe.content, str(recipe.path))))
