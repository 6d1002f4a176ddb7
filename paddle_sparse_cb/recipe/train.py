"""Trains a recipe: start weights, training, and the steps that follow."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import paddle

from ..callbacks.best_checkpoint import BestCheckpoint
from ..callbacks.checkpoint import Checkpoints
from ..callbacks.curves import TrainingCurves
from ..callbacks.distillation import Distillation
from ..callbacks.evaluation_log import EvaluationLog
from ..callbacks.progress import TrainingProgress
from ..callbacks.resume import ResumableCallbacks
from ..callbacks.sparsity import SparsityCallback
from ..callbacks.stop_on_signal import Signals, StopOnSignal
from ..callbacks.sync_buffers import SyncBuffers
from ..checkpoints.position import ResumeState
from ..detection.network import LOSS_NAMES, SetEpoch
from ..detection.weights import LoadedWeights
from ..hooks import call_hooks
from ..pruning.statistics import measure_sparsity
from ..report.schema import read_report
from ..utils.distributed import is_distributed, is_rank_zero, rank_zero_info, rank_zero_warning
from ..utils.locks import lock_folder
from .build import Run, build, build_ema, load_weights
from .distillation import build_distillation
from .output_folder import check_space, prepare_output
from .permute import permute_run
from .post_train import hooks_after_dense_training, hooks_after_training
from .preflight import check_recipe, check_trainable
from .report_details import evaluation_file
from .resume import LAST, checkpoint_metadata, find_resume_state
from .schema import Recipe
from .sparsity_block import LOGGING_KEYS, training_settings

_SHORT_LOSS_NAMES = [name[len("loss_") :] for name in LOSS_NAMES]


@dataclass(frozen=True)
class TrainOptions:
    """How a recipe is trained.

    Attributes:
        evaluate: evaluate at each checkpoint and keep the best one; the start and the result are always evaluated.
        resume: a checkpoint to resume from, with or without a suffix; `last` is the newest complete one of the
            recipe's output folder, or of the dense recipe that it starts from, or else the beginning.
        allow_config_change: the recipe may differ from that of the checkpoint.
        export: `best` or `last`: which checkpoint is exported and reported.
        overwrite: remove the files of an earlier training in the output folder instead of moving them aside.
        signals: the signals of the process.
        command: the command that trains it, for the report.
    """

    evaluate: bool = True
    resume: str | None = None
    allow_config_change: bool = False
    export: str = "best"
    overwrite: bool = False
    signals: Signals = field(default_factory=Signals)
    command: str = ""


def train(recipe: Recipe, options: TrainOptions | None = None) -> None:
    """Runs a recipe from its start weights, or from a checkpoint, to its report.

    Under `paddle.distributed.launch` all ranks call this; rank 0 writes.

    Args:
        recipe: the recipe.
        options: how to train it.

    Raises:
        InputError: the recipe, its data, its weights or the checkpoint cannot be used, or another process trains it.
        PipelineError: the training diverged, a later step failed, or a verification failed.
        KeyboardInterrupt: a signal ended the training; `Interrupted` if a checkpoint was saved.
    """
    options = options or TrainOptions()
    check_recipe(recipe)
    # A folder that does not exist yet is created once it is known that the recipe can be trained.
    with lock_folder(recipe.output) if recipe.output.is_dir() else contextlib.nullcontext():
        resume = find_resume_state(recipe, options.resume, options.allow_config_change)
        if recipe.output.is_dir() and not resume and not options.overwrite:
            check_space(recipe)
        # Paddle's optimizers refer to parameters by names that are numbered as they are created: they restart with
        # each recipe.
        with paddle.utils.unique_name.guard():
            run = build(recipe)  # before a dense training of days, so that errors come before it
            check_trainable(run)
        source = None if resume else start_weights(recipe, options)
        loaded = load_weights(recipe, run, source) if source else None
        if not resume:
            permute_run(run)
        with lock_folder(recipe.output), paddle.utils.unique_name.guard():
            _train(run, loaded, options, resume, build_distillation(recipe, run.network))


def _train(
    run: Run,
    loaded: LoadedWeights | None,
    options: TrainOptions,
    resume: ResumeState | None,
    distillation: list[Distillation],
) -> None:
    recipe = run.recipe
    run.commands = [options.command] if options.command else []
    if recipe.sparsity is None:
        _fit(run, distillation, options, resume)
        call_hooks(hooks_after_dense_training(run), run.context(recipe.checkpoint("last")))
        return
    if resume:
        run.report.dense = dict(resume.state.training.get("dense") or {})
        run.report.dense_note = str(resume.state.training.get("dense_note") or "")
    else:
        _measure_dense(run, loaded.untrained_heads if loaded else ())
    sparsity = SparsityCallback(
        **training_settings(recipe.sparsity),
        plan=run.plan,
        save_dir=recipe.output,
        post_train=hooks_after_training(run, options.export),
        allow_config_change=options.allow_config_change,
        verbose=True,
    )
    _fit(run, [sparsity, *distillation], options, resume)


def _measure_dense(run: Run, untrained_heads: tuple[str, ...]) -> None:
    """Evaluates the network before pruning, unless its prediction heads are untrained."""
    if untrained_heads:
        run.report.dense_note = (
            "no dense baseline: the prediction heads do not fit the start weights and are "
            "untrained; train a dense recipe first and start from it (pretrain_weights: "
            "recipe:FILE)"
        )
        rank_zero_info(run.report.dense_note)
        return
    dense = run.evaluate()
    run.dense_evaluation = run.metric.last
    run.report.dense = {**dense, "sparsity": measure_sparsity(run.network, run.plan).ratio}
    rank_zero_info("before pruning: mAP {mAP:.4f}, AP50 {AP50:.4f}".format(**run.report.dense))


def _fit(
    run: Run, callbacks: Sequence[paddle.callbacks.Callback], options: TrainOptions, resume: ResumeState | None
) -> None:
    recipe, content = run.recipe, run.recipe.content
    every = content.get("snapshot_epoch", 1)
    resume = prepare_output(recipe, resume, options.overwrite)
    if is_distributed():
        paddle.distributed.barrier()  # rank 0 has moved what all ranks read
    if run.dense_evaluation is not None and is_rank_zero():
        run.dense_evaluation.save(evaluation_file(recipe.output, "dense"))
    metadata = checkpoint_metadata(recipe, run.report.dense, run.report.dense_note)
    checkpoints = Checkpoints(recipe.checkpoints, every, content.get("snapshot_iter"), metadata)
    evaluated = run.eval_loader if options.evaluate else None
    together = [
        SetEpoch(),
        SyncBuffers(),
        *build_ema(recipe),
        checkpoints,
        StopOnSignal(options.signals, checkpoints),
        BestCheckpoint(recipe.checkpoints, "mAP"),
        EvaluationLog(recipe.evaluations, ("mAP", "AP50")),
        _curves(run),
        TrainingProgress(recipe.name, _SHORT_LOSS_NAMES, content.get("log_iter", 20)),
        *callbacks,
    ]
    run.model.fit(
        run.train_loader,
        evaluated,
        epochs=content["epoch"],
        verbose=0,
        callbacks=[
            ResumableCallbacks(
                together, run.train_loader, evaluated, every, resume, options.allow_config_change, recipe.seed
            )
        ],
    )


def _curves(run: Run) -> TrainingCurves:
    recipe, dense = run.recipe, run.report.dense
    settings = {
        "recipe": recipe.name,
        "model": recipe.model,
        "base_lr": recipe.content["LearningRate"].get("base_lr"),
        "seed": recipe.seed,
        "start": str(recipe.content.get("pretrain_weights") or ""),
    }
    baseline = {name: value for name, value in dense.items() if name != "sparsity"}
    # A dense training, which has no such keys, has a point as often as it prints a line.
    given = {"log_freq": recipe.content.get("log_iter", 20)} if recipe.sparsity is None else recipe.sparsity
    logging = {key: given[key] for key in LOGGING_KEYS if key in given}
    return TrainingCurves(recipe.curves, **logging, baseline=baseline, settings=settings)


def start_weights(recipe: Recipe, options: TrainOptions) -> str | None:
    """Returns where the weights come from; a `recipe:` is trained first unless its result is up to date."""
    dense = recipe.dense
    if dense is None:
        source = recipe.content.get("pretrain_weights")
        if not source and recipe.sparsity is not None:
            rank_zero_warning("starting from untrained weights; pruning assumes a converged model")
        return source
    weights, report = dense.checkpoint("last"), dense.output / "report.json"
    if weights.is_file() and report.is_file() and read_report(dense.output)["digest"] == dense.digest:
        rank_zero_info(f"using the dense model of {dense.path} in {dense.output}")
    else:
        rank_zero_info(f"training the dense model first: {dense.path}")
        train(dense, replace(options, resume=options.resume and LAST))
        if paddle.distributed.get_world_size() > 1:
            paddle.distributed.barrier()  # rank 0 has written what all ranks read
    return str(weights)
