"""The steps of a recipe one by one, as the command line offers them."""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import asdict
from pathlib import Path

from ..deploy.lite.constraints import find_dense_layers
from ..detection import config
from ..errors import InputError
from ..hooks import call_hooks
from ..report.schema import read_report
from ..utils.distributed import rank_zero_info
from ..utils.locks import lock_folder
from .build import Run, build, build_plan, load_weights, naming_recipe
from .post_train import ExportDetector, hooks_after_export, verify_hooks
from .preflight import check_plan
from .schema import Recipe


@naming_recipe
def print_plan(recipe: Recipe, as_json: bool = False) -> None:
    """Prints what a recipe prunes, as a table or as JSON; needs neither data nor weights.

    Raises:
        InputError: a planned layer would end below its ratio, or dense in Paddle-Lite.
    """
    with config.convert_errors(recipe.files):
        plan = build_plan(recipe)
    min_sparsity = recipe.pruning_config().min_sparsity(plan)
    dense = {} if recipe.sparsity is None else find_dense_layers(plan, min_sparsity)
    if as_json:
        print(json.dumps({"layers": [asdict(layer) for layer in plan.layers], "dense_in_lite": dense}, indent=1))
    else:
        print("\n".join([str(plan), *(f"dense in Paddle-Lite: {name}: {reason}" for name, reason in dense.items())]))
    if recipe.sparsity is not None:
        check_plan(recipe, plan)


def print_evaluation(recipe: Recipe, export: str | None = None, as_json: bool = False) -> None:
    """Evaluates a trained recipe and prints mAP, AP50 and sparsity, as a line or as JSON and nothing else."""
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        run, weights = load_trained(recipe, export)
        result = {**run.evaluate(), "sparsity": run.context(weights).sparsity.ratio}
    if as_json:
        print(json.dumps({"checkpoint": str(weights), **result}, indent=1))
    else:
        print("mAP {mAP:.4f}, AP50 {AP50:.4f}, sparsity {sparsity:.4%}".format(**result))


def export(recipe: Recipe, export: str | None = None) -> None:
    """Exports a trained recipe again."""
    run, weights = load_trained(recipe, export)
    with lock_folder(recipe.output):
        call_hooks([ExportDetector(run)], run.context(weights))


def optimize(recipe: Recipe, export: str | None = None) -> None:
    """Runs Paddle-Lite's optimizer on an exported recipe, verifies the result and reports.

    Raises:
        InputError: the recipe has not been trained or exported.
        PipelineError: the optimizer is missing or failed, or the verification failed.
    """
    run, weights = load_trained(recipe, export)
    context = run.context(weights)
    if "inference" not in context.artefacts:
        raise InputError(f"{recipe.exported}.pdmodel: not exported yet; run: paddle-sparse export {recipe.path}")
    report = read_report(recipe.output)
    run.report.digest, run.report.checkpoint = report["digest"], weights.stem
    if report["digest"] != recipe.digest:
        rank_zero_info(f"warning: {recipe.path} has changed since it was trained")
    run.report.dense_note = report.get("dense_note") or ""
    for row in report["rows"]:
        metrics = {"mAP": row["map"], "AP50": row["ap50"], "sparsity": row["sparsity"]}
        if row["name"] == "dense":
            run.report.dense = metrics
        else:
            context.metrics.update(metrics)
    with lock_folder(recipe.output):
        call_hooks(hooks_after_export(run), context)


def verify(recipe: Recipe, export: str | None = None) -> None:
    """Verifies everything that a recipe made: all checkpoints, the exported model and the `.nb` files.

    Raises:
        InputError: the recipe has not been trained.
        PipelineError: the verification failed.
    """
    run, weights = load_trained(recipe, export)
    context = run.context(weights)
    if recipe.sparsity is not None:  # a file that is missing is a mismatch
        context.artefacts.update(run.expected_artefacts)
    call_hooks(verify_hooks(run), context)


def trained_weights(recipe: Recipe, export: str | None) -> Path:
    """Returns the weights to work on.

    These are, in this order, `weights` of the recipe, the checkpoint that `export` chooses, the one that the report
    names, and the best one.

    Raises:
        InputError: the recipe has not been trained.
    """
    weights = recipe.given_weights
    if weights is None:
        weights = recipe.checkpoint(export or _reported(recipe))
        if not weights.is_file():
            raise InputError(f"{weights}: not trained yet; run: paddle-sparse train {recipe.path}")
        if recipe.content.get("weights"):
            rank_zero_info(f"weights: {recipe.content['weights']} does not exist; using {weights}")
    return weights


def load_trained(recipe: Recipe, export: str | None) -> tuple[Run, Path]:
    """Builds a recipe with the weights to work on (`trained_weights`)."""
    weights = trained_weights(recipe, export)
    run = build(recipe)
    load_weights(recipe, run, str(weights))
    return run, weights


def _reported(recipe: Recipe) -> str:
    if not (recipe.output / "report.json").is_file():
        return "best"
    return "last" if read_report(recipe.output).get("checkpoint") == "final" else "best"
