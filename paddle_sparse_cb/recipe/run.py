"""A recipe to a run: start weights, training, and what follows it."""

from __future__ import annotations

import contextlib
import functools
import os
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, cast

import numpy as np
import paddle
from paddle.callbacks import ProgBarLogger
from paddle.static import InputSpec

from ..callbacks.best_checkpoint import BestCheckpoint
from ..callbacks.ema import EMACallback
from ..callbacks.eta import EtaPrinter
from ..callbacks.evaluation_log import EvaluationLog
from ..callbacks.resume import ResumableCallbacks, TrainingPosition
from ..callbacks.sparsity import SparsityCallback
from ..callbacks.stop_on_signal import Signals, StopOnSignal
from ..checkpoints.store import Checkpoints, load_checkpoint
from ..deploy.export import Export
from ..deploy.lite.constraints import check_runs_sparse, find_dense_layers
from ..deploy.lite.optimizer import OptimizeLite, find_optimizer
from ..deploy.verify import fail_on_mismatch, print_verification, verify
from ..detection import config
from ..detection.datasets.build import build_loader, ground_truth
from ..detection.metric import CocoMAP
from ..detection.network import DetectionLoss, DetectionNetwork, SetEpoch, build_network, build_optimizer
from ..detection.weights import load_pretrained
from ..errors import InputError, PipelineError
from ..hooks import Hook, HookContext, call_hooks
from ..pruning.planner import PrunePlan, make_plan
from ..pruning.statistics import measure_sparsity
from ..report.report import WriteReport, read_report, table
from ..utils.distributed import SyncBuffers, is_rank_zero, rank_zero_info
from . import resume as resumption
from .resume import Checkpoint
from .schema import Recipe
from .smoke import write_annotations

_ARTEFACTS = {"pdparams": "checkpoints/final.pdparams", "nb_dense": "model_dense.nb", "nb_sparse": "model_sparse.nb"}


_Function = TypeVar("_Function", bound=Callable[..., Any])


def _naming_its_files(function: _Function) -> _Function:
    """Has the errors of a function of a recipe name the recipe's files."""
    @functools.wraps(function)
    def call(recipe: Recipe, *arguments: Any) -> Any:
        with config.naming(recipe.files):
            return function(recipe, *arguments)
    return cast(_Function, call)


@dataclass
class Run:
    """The pieces of a recipe, made: network, data and `paddle.Model`."""

    recipe: Recipe
    network: DetectionNetwork
    model: paddle.Model
    train_loader: paddle.io.DataLoader
    eval_loader: paddle.io.DataLoader
    plan: PrunePlan
    report: WriteReport

    def evaluate(self) -> dict[str, float]:
        """`mAP` and `AP50` of the network as it is; all ranks take part."""
        rank_zero_info(f"evaluating on {len(self.eval_loader.dataset)} images ...")
        result = self.model.evaluate(self.eval_loader, verbose=0, callbacks=[SyncBuffers()])
        return {name: float(result[name]) for name in ("mAP", "AP50")}

    def context(self) -> HookContext:
        """What the hooks work on, with what the output folder holds already."""
        output = self.recipe.output
        found = {name: output / file for name, file in _ARTEFACTS.items() if (output / file).is_file()}
        if self.recipe.exported.with_suffix(".pdmodel").is_file():
            found["inference"] = self.recipe.exported
        sparsity = measure_sparsity(self.network, self.plan)
        return HookContext(self.network, output, self.plan, sparsity, self.recipe.target_ratio, artefacts=found)


@dataclass
class _Evaluate:
    """Post-train hook: measures the finalized network."""

    run: Run
    every_rank = True

    def __call__(self, context: HookContext) -> None:
        context.metrics.update(self.run.evaluate())


@dataclass
class _ExportDetector:
    """Post-train hook: exports the detector with what follows its heads, as the recipe's `export:` block says."""

    run: Run

    def __call__(self, context: HookContext) -> None:
        options = self.run.recipe.content.get("export") or {}
        behind_heads = {key: options[key] for key in ("post_process", "nms") if key in options}
        with self.run.network.export_mode(*self.run.recipe.input_size, **behind_heads) as (detector, specs):
            Export(specs, detector)(context)


def _note_weights(context: HookContext) -> None:
    """Post-train hook: the last checkpoint is an artefact, to be verified with the others."""
    context.artefacts["pdparams"] = context.output / _ARTEFACTS["pdparams"]


def _print_table(context: HookContext) -> None:
    """Post-train hook: the table and where things lie."""
    print(f"\n{table(read_report(context.output))}\n")
    for name in ("report.md", "report.json", "tensorboard", "checkpoints", "inference", "model_dense.nb",
                 "model_sparse.nb"):
        if (context.output / name).exists():
            print(f"  {context.output / name}")


@dataclass(frozen=True)
class How:
    """How a recipe is trained.

    Attributes:
        evaluating: also measures at each checkpoint, and keeps the best; before and after is always measured.
        resume: a checkpoint to go on from, with or without an ending; `last` is the newest whole one of the recipe's
            output folder, or of that of the dense recipe that it starts from, or else the begin.
        changed: what goes on may be another recipe than the checkpoint's.
        signals: of the process.
    """

    evaluating: bool = True
    resume: str | None = None
    changed: bool = False
    signals: Signals = field(default_factory=Signals)


def train(recipe: Recipe, how: How | None = None) -> None:
    """Runs a recipe from its start weights, or from a checkpoint, to its report.

    Under `paddle.distributed.launch` all ranks call this; rank 0 writes.

    Args:
        recipe: the recipe.
        how: how.

    Raises:
        InputError: the recipe, its data, its weights or the checkpoint cannot be used.
        PipelineError: a step after the training failed, or what came out does not hold the promise.
        KeyboardInterrupt: a signal ended the training; `Interrupted` if a checkpoint was saved.
    """
    how = how or How()
    _check(recipe)
    checkpoint = resumption.find(recipe, how.resume, how.changed)
    # Paddle's optimizers go by names that are given out one after another: they begin anew with each recipe.
    with paddle.utils.unique_name.guard():
        run = _build(recipe)  # before a dense training of days, which what is wrong here would come after
        _require_trainable(recipe, run)
    source = None if checkpoint else _start_weights(recipe, how)
    if source:
        _load(recipe, run, source)
    with paddle.utils.unique_name.guard():
        if recipe.sparsity is None:
            if checkpoint:
                load_checkpoint(run.model, checkpoint.path, len(run.train_loader), how.changed)
            _fit(run, [], how, checkpoint)
            call_hooks([_Evaluate(run), run.report, _print_table], run.context())
            return
        run.report.dense = checkpoint.dense if checkpoint else _measure_dense(run)
        if is_rank_zero() and not checkpoint:
            # Curves of two runs in one plot help nobody.
            shutil.rmtree(recipe.output / "tensorboard", ignore_errors=True)
        # The report is written before Lite too, in case its optimizer is missing.
        hooks: list[Hook] = [_Evaluate(run), _note_weights, _ExportDetector(run), run.report, *_after_export(run)]
        _fit(run, [SparsityCallback(**{**recipe.sparsity, "skip": ()}, plan=run.plan, save_dir=recipe.output,
                                    log_dir=recipe.output / "tensorboard", post_train=hooks,
                                    resume=checkpoint.path if checkpoint else None, allow_config_change=how.changed)],
             how, checkpoint)


def _measure_dense(run: Run) -> dict[str, float]:
    found = {**run.evaluate(), "sparsity": measure_sparsity(run.network, run.plan).ratio}
    rank_zero_info(f"before pruning: mAP {found['mAP']:.4f}, AP50 {found['AP50']:.4f}")
    return found


@_naming_its_files
def _check(recipe: Recipe) -> None:
    """Finds what is wrong with a recipe and the machine before anything is made."""
    folder = next(path for path in (recipe.output, *recipe.output.parents) if path.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise InputError(f"save_dir: {recipe.output} cannot be made: {folder} is no folder that can be written to")
    _averaging(recipe)
    if recipe.content.get("amp", False) and paddle.get_device() == "cpu":
        rank_zero_info("warning: amp: on a CPU Paddle trains in float32 all the same")
    if recipe.sparsity is not None and is_rank_zero():
        try:
            find_optimizer()
        except PipelineError as error:
            rank_zero_info(f"warning: {error}")


@_naming_its_files
def _require_trainable(recipe: Recipe, run: Run) -> None:
    """Finds a schedule that does not fit into the training, and layers that would end dense."""
    steps = len(run.train_loader)
    if recipe.sparsity is None:
        return
    SparsityCallback(**recipe.sparsity).schedule(steps, recipe.content["epoch"] * steps)
    _require_sparse(recipe, run.plan)


def _require_sparse(recipe: Recipe, plan: PrunePlan) -> None:
    """Finds what would end below its ratio, or dense in Paddle-Lite, before a training of days and not after it."""
    assert recipe.sparsity is not None
    plan.require_layers()
    rows, columns = recipe.sparsity.get("sparse_block", (1, 1))
    for layer in plan.pruned:
        if layer.shape[0] % rows or layer.shape[1] % columns:
            raise InputError(f"{recipe.files}: Sparsity.sparse_block {[rows, columns]} does not divide {layer.name} "
                             f"{list(layer.shape)}, which would end below its ratio")
    check_runs_sparse(plan, SparsityCallback(**recipe.sparsity).min_sparsity(plan))


def _after_export(run: Run) -> list[Hook]:
    return [OptimizeLite(run.recipe.lite_options), verify, run.report, _print_table, fail_on_mismatch]


def _fit(run: Run, callbacks: list[paddle.callbacks.Callback], how: How, checkpoint: Checkpoint | None) -> None:
    recipe, content = run.recipe, run.recipe.content
    every = content.get("snapshot_epoch", 1)
    place = checkpoint.place(len(run.train_loader), how.changed) if checkpoint else TrainingPosition()
    folder = resumption.folder(recipe)
    if not checkpoint:
        resumption.archive_previous(recipe)
    kept = resumption.checkpoint_metadata(recipe, run.report.dense)
    saving = Checkpoints(folder, every, content.get("snapshot_iter"), kept, place)
    common = [SetEpoch(), EtaPrinter(recipe.name), SyncBuffers(), *_averaging(recipe, checkpoint), saving,
              StopOnSignal(how.signals, saving), BestCheckpoint(folder, "mAP", place=place),
              EvaluationLog(recipe.evaluations, ("mAP", "AP50"), place), *callbacks]
    if is_rank_zero():
        common.append(ProgBarLogger(content.get("log_iter", 20), verbose=1 if sys.stdout.isatty() else 2))
    measured = run.eval_loader if how.evaluating else None
    run.model.fit(run.train_loader, measured, epochs=content["epoch"], verbose=0,
                  callbacks=[ResumableCallbacks(common, run.train_loader, measured, every, place, recipe.seed)])


def _averaging(recipe: Recipe, checkpoint: Checkpoint | None = None) -> list[EMACallback]:
    """The average of the weights that PaddleDetection's `use_ema` and its companions ask for."""
    content = recipe.content
    use, cycle = content.get("use_ema", False), content.get("cycle_epoch", -1)
    if not isinstance(use, bool):
        raise InputError(f"{recipe.files}: use_ema is true or false, got {use!r}")
    if not use:
        return []
    if type(cycle) is int and cycle > 0:  # what PaddleDetection counts is snapshots, whatever the name says
        cycle *= content.get("snapshot_epoch", 1)
    given = {key: content[f"ema_{key}"] for key in ("decay", "decay_type", "black_list")
             if content.get(f"ema_{key}") is not None}
    try:
        return [EMACallback(cycle_epochs=cycle, resume=checkpoint.path if checkpoint else None, **given)]
    except InputError as error:
        raise InputError(f"{recipe.files}: use_ema: {error}") from None


def _start_weights(recipe: Recipe, how: How) -> str | None:
    """Where the weights come from; the dense recipe of a `recipe:` is run first unless its result is there."""
    dense = recipe.dense
    if dense is None:
        source = recipe.content.get("pretrain_weights")
        if not source and recipe.sparsity is not None:
            rank_zero_info("warning: starting from untrained weights; pruning assumes a converged model")
        return source
    report = dense.output / "report.json"
    if dense.weights.is_file() and report.is_file() and read_report(dense.output)["digest"] == dense.digest:
        rank_zero_info(f"using the dense model of {dense.path} in {dense.output}")
    else:
        rank_zero_info(f"training the dense model first: {dense.path}")
        train(dense, replace(how, resume=how.resume and resumption.LAST))
        if paddle.distributed.get_world_size() > 1:
            paddle.distributed.barrier()  # rank 0 has written what all read
    return str(dense.weights)


@_naming_its_files
def _build(recipe: Recipe) -> Run:
    """Makes network, data and model."""
    random.seed(recipe.seed)
    np.random.seed(recipe.seed)
    paddle.seed(recipe.seed)
    if recipe.cut_down:
        write_annotations(recipe)
    with config.blaming(recipe.files):
        registry = config.load(recipe.content, recipe.files)
        network = build_network(registry)
        loaders = build_loader(registry, "Train"), build_loader(registry, "Eval")
        plan = _plan(recipe, network)
        if paddle.get_device() == "cpu":
            from ..detection.depthwise import use_fast_depthwise  # here, because numba is not for Paddle 3

            use_fast_depthwise(network)
        report = WriteReport(recipe.name, recipe.seed, recipe.model, recipe.input_size, recipe.digest)
        return Run(recipe, network, _prepare(recipe, network, *loaders), *loaders, plan, report)


@_naming_its_files
def _load(recipe: Recipe, run: Run, source: str) -> None:
    """Puts weights into the network, and says what came of it."""
    loaded = load_pretrained(run.network, source)
    rank_zero_info(str(loaded))
    untrained = len({layer.name for layer in run.plan.pruned} & set(loaded.left))
    if untrained:
        rank_zero_info(f"warning: {untrained} of the {len(run.plan.pruned)} layers to prune start untrained; pruning assumes a "
            "converged model")


def _prepare(recipe: Recipe, network: DetectionNetwork, train_loader: paddle.io.DataLoader,
             eval_loader: paddle.io.DataLoader) -> paddle.Model:
    with _finding_unused_parameters(bool(recipe.content.get("find_unused_parameters", False))):
        model = paddle.Model(network, inputs=network.input_spec())
    image_ids = [int(record["im_id"][0]) for record in eval_loader.dataset.source.roidbs]
    metric = CocoMAP(ground_truth(eval_loader.dataset.source), image_ids)
    model.prepare(build_optimizer(network, len(train_loader)), DetectionLoss(), metric, _mixed_precision(recipe))
    return model


def _mixed_precision(recipe: Recipe) -> dict[str, Any] | None:
    """What PaddleDetection's `amp` and its companions ask of `paddle.Model.prepare`."""
    content = recipe.content
    if not content.get("amp", False):
        return None
    lists = {key: content[key] for key in ("custom_white_list", "custom_black_list") if content.get(key)}
    return {"level": content.get("amp_level", "O1"), "init_loss_scaling": content.get("init_loss_scaling", 1024),
            **lists}


@contextlib.contextmanager
def _finding_unused_parameters(finding: bool) -> Iterator[None]:
    """Has hapi's wrapper for several ranks look for parameters without gradients.

    A rank whose batch has no box leaves the box branch without them. hapi makes the wrapper itself and cannot be told
    so; a second wrapper would leave the hooks of the first on the parameters.
    """
    wrapper = paddle.DataParallel
    paddle.DataParallel = functools.partial(wrapper, find_unused_parameters=finding)
    try:
        yield
    finally:
        paddle.DataParallel = wrapper


def _plan(recipe: Recipe, network: DetectionNetwork) -> PrunePlan:
    """The plan of a recipe: its rules on a forward of the exported size; nothing is pruned in a dense one."""
    height, width = recipe.input_size
    spec = [InputSpec([1, 3, height, width], "float32"), InputSpec([1, 2], "float32"), InputSpec([1, 1], "int64")]
    rules = recipe.sparsity or {}
    plan = make_plan(network, spec, skip=[*network.prediction_layers(), *rules.get("skip", ())],
                     prune_params_type=rules.get("prune_params_type", "conv1x1_only"),
                     prune_squeeze_excite=rules.get("prune_squeeze_excite", False))
    if recipe.sparsity is not None:
        return plan
    return PrunePlan(tuple(replace(layer, pruned=False, reason=layer.reason or "dense recipe")
                           for layer in plan.layers))


@_naming_its_files
def print_plan(recipe: Recipe) -> None:
    """Prints what a recipe prunes; needs no data and no weights.

    Raises:
        InputError: a planned layer would end below its ratio, or dense in Paddle-Lite.
    """
    with config.blaming(recipe.files):
        plan = _plan(recipe, build_network(config.load(recipe.content, recipe.files)))
    print(plan)
    if recipe.sparsity is None:
        return
    least = SparsityCallback(**recipe.sparsity).min_sparsity(plan)
    for name, reason in find_dense_layers(plan, least).items():
        print(f"dense in Paddle-Lite: {name}: {reason}")
    _require_sparse(recipe, plan)


def evaluate(recipe: Recipe) -> str:
    """Measures a trained recipe: a line with mAP, AP50 and sparsity."""
    run = _trained(recipe)
    result = run.evaluate()
    return f"mAP {result['mAP']:.4f}, AP50 {result['AP50']:.4f}, sparsity {run.context().sparsity.ratio:.4%}"


def export(recipe: Recipe) -> None:
    """Exports a trained recipe again."""
    run = _trained(recipe)
    call_hooks([_ExportDetector(run)], run.context())


def optimize(recipe: Recipe) -> None:
    """Runs Paddle-Lite's optimizer on an exported recipe, checks the result and reports.

    Raises:
        InputError: the recipe has not been trained or exported.
        PipelineError: the optimizer is missing or failed, or the result does not hold the promise.
    """
    run = _trained(recipe)
    context = run.context()
    if "inference" not in context.artefacts:
        raise InputError(f"{recipe.exported}.pdmodel: not exported yet; run: paddle-sparse export {recipe.path}")
    report = read_report(recipe.output)
    run.report.digest = report["digest"]  # of what was trained, which the file may have left behind
    if report["digest"] != recipe.digest:
        rank_zero_info(f"warning: {recipe.path} has changed since it was trained")
    for row in report["rows"]:
        metrics = {"mAP": row["map"], "AP50": row["ap50"], "sparsity": row["sparsity"]}
        if row["name"] == "dense":
            run.report.dense = metrics
        else:
            context.metrics.update(metrics)
    call_hooks(_after_export(run), context)


def check(recipe: Recipe) -> None:
    """Counts the zeros in everything that a recipe made.

    Raises:
        InputError: the recipe has not been trained.
        PipelineError: a file does not hold the promise.
    """
    call_hooks([verify, print_verification, fail_on_mismatch], _trained(recipe).context())


def _trained(recipe: Recipe) -> Run:
    if not recipe.weights.is_file():
        raise InputError(f"{recipe.weights}: nothing trained here yet; run: paddle-sparse train {recipe.path}")
    run = _build(recipe)
    _load(recipe, run, str(recipe.weights))
    return run
