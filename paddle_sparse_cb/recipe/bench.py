"""`paddle-sparse bench RECIPE`: measures the models of a recipe."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import paddle

from ..deploy.bench.engines import MNN
from ..deploy.bench.layers import measure_layers
from ..deploy.bench.run import make_result, measure_rows
from ..detection import config
from ..detection.network import build_network
from ..errors import PipelineError
from ..utils.files import write_text
from .bench_eval import DetectorEvaluation
from .bench_folder import BenchRequest
from .bench_models import AT_ONCE, MNN_BLOCK, BenchModels, ModelMaker
from .build import build, find_weights, make_recipe_plan, naming_recipe
from .schema import Recipe


@naming_recipe
def bench_recipe(recipe: Recipe, request: BenchRequest) -> dict[str, Any]:
    """Measures the models of a recipe: of its trained weights, or else of untrained ones that are pruned at once.

    Returns:
        `machine`, `rows` and `notes`, see `make_result`, and `layers` if they were asked for, see `measure_layers`.

    Raises:
        InputError: the recipe cannot be built or exported.
        PipelineError: a conversion failed.
    """
    options = request.options()
    if request.ratios and recipe.sparsity is None:
        recipe = replace(recipe, sparsity={"prune_params_type": "conv1x1_only", "ratio": request.ratios[0]})
    paddle.seed(recipe.seed)
    with config.convert_errors(recipe.files):
        network = build_network(config.load(recipe.content, recipe.files))
        plan = make_recipe_plan(recipe, network)
    with tempfile.TemporaryDirectory() as folder:
        maker = ModelMaker(recipe, network, plan, Path(folder), request.log)
        models = make_models(recipe, maker, request)
        if request.evaluate and any(one.is_trained for one in models.candidates):
            options = replace(options, evaluate=DetectorEvaluation(build(recipe)))
        elif request.evaluate:
            models.notes.append("no mAP: the weights are untrained")
        result = make_result(measure_rows(models.candidates, options), models.notes)
        if request.layers is not None:
            result["layers"] = _measure_layers(models, request)
            write_text(request.layers or recipe.output / "layers.json", json.dumps(result["layers"], indent=1) + "\n")
        return result


def make_models(recipe: Recipe, maker: ModelMaker, request: BenchRequest) -> BenchModels:
    """Makes the models of a recipe that are measured, and notes what they are."""
    trained = request.weights or (None if request.ratios else find_weights(recipe, request.export))
    settings, made = recipe.pruning_config(), maker.made
    own_block = (settings.sparse_block[0], settings.sparse_block[1])
    blocks = dict.fromkeys(request.blocks or ((1, 1), MNN_BLOCK, own_block))
    if trained is None:
        maker.add_dense(maker.initial())
        ratios = request.ratios or ([settings.ratio] if recipe.sparsity is not None else [])
        for ratio in ratios:
            for block in blocks:
                maker.add_sparse(maker.pruned(ratio, block))
        if not ratios:
            made.notes.append("a dense recipe: --ratio 0.75 measures pruned weights too")
        return made
    made.notes.append(f"weights: {trained}")
    if recipe.sparsity is None:
        maker.add_dense(maker.checkpoint("dense", trained))
        return made
    own = maker.checkpoint("sparse", trained, own_block)
    dense = recipe.dense.checkpoint("last") if recipe.dense else None
    if dense is not None and dense.is_file():
        made.notes.append(f"dense rows: the weights before pruning, {dense}")
        maker.add_dense(maker.checkpoint("dense", dense))
    else:
        made.notes.append("dense rows: the pruned weights with dense kernels")
        maker.add_dense(own)
    maker.add_sparse(own)
    for block in blocks:
        if block != own_block:
            maker.add_sparse(maker.pruned(settings.ratio, block, AT_ONCE))
    return made


def _measure_layers(models: BenchModels, request: BenchRequest) -> dict[str, Any]:
    if not models.layer_models:
        raise PipelineError(f"--layers: needs {MNN.name}: pip install 'paddle_sparse_cb[{MNN.extra}]'")
    request.log("measuring the layers on MNN ...")
    return measure_layers(models.layer_models, models.dense, models.pruned, request.seconds / 3)
