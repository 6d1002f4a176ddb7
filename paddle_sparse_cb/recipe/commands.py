"""The steps of a recipe one by one, as the command line offers them."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from ..deploy.lite import constraints as lite
from ..deploy.mnn import constraints as mnn
from ..detection import config
from ..errors import InputError
from ..hooks import call_hooks
from ..report.schema import read_report
from ..utils.distributed import rank_zero_warning
from ..utils.locks import lock_folder
from .build import Run, build, build_plan, find_weights, load_weights, naming_recipe, reported_checkpoint
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
    least = recipe.pruning_config().min_sparsity(plan)
    in_lite = {} if recipe.sparsity is None else lite.find_dense_layers(plan, least)
    in_mnn = {} if recipe.sparsity is None else mnn.find_dense_layers(plan, least, recipe.mnn_block or 1)
    if as_json:
        layers = [asdict(layer) for layer in plan.layers]
        print(json.dumps({"layers": layers, "dense_in_lite": in_lite, "dense_in_mnn": in_mnn}, indent=1))
    else:
        print(plan)
    if recipe.sparsity is not None:
        if not as_json:
            _print_dense_layers(len(plan.pruned), in_lite, in_mnn)
        check_plan(recipe, plan)


def _print_dense_layers(planned: int, in_lite: Mapping[str, str], in_mnn: Mapping[str, str]) -> None:
    """Prints how many planned layers each runtime runs sparse, and each layer that one of them runs dense."""
    for name, reason in in_lite.items():
        print(f"dense in Paddle-Lite: {name}: {reason}{'' if name in in_mnn else '; sparse in MNN'}")
    for name, reason in in_mnn.items():
        if name not in in_lite:
            print(f"dense in MNN: {name}: {reason}; sparse in Paddle-Lite")
    print(
        f"sparse in Paddle-Lite: {planned - len(in_lite)} of {planned} planned layers; in MNN: {planned - len(in_mnn)}"
    )


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
    for name in {"inference", "inference_no_nms"} & run.expected_artefacts.keys() - context.artefacts.keys():
        path = run.expected_artefacts[name]
        raise InputError(f"{path}.pdmodel: not exported yet; run: paddle-sparse export {recipe.path}")
    report = read_report(recipe.output)
    run.report.digest, run.report.checkpoint = report["digest"], weights.stem
    command = f"paddle-sparse optimize {shlex.quote(str(recipe.path))}"
    run.commands = [*(one for one in report.get("commands", ()) if one != command), command]
    if report["digest"] != recipe.digest:
        rank_zero_warning(f"{recipe.path} has changed since it was trained")
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

    Raises:
        InputError: the recipe has not been trained (see `find_weights`).
    """
    weights = find_weights(recipe, export)
    if weights is None:
        missing = recipe.checkpoint(export or reported_checkpoint(recipe))
        raise InputError(f"{missing}: not trained yet; run: paddle-sparse train {recipe.path}")
    return weights


def load_trained(recipe: Recipe, export: str | None) -> tuple[Run, Path]:
    """Builds a recipe with the weights to work on (`trained_weights`)."""
    weights = trained_weights(recipe, export)
    run = build(recipe)
    load_weights(recipe, run, str(weights))
    return run, weights
