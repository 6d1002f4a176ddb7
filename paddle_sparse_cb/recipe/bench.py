"""`paddle-sparse bench`: measures the latency of a recipe's models, or of the models in a folder."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import paddle

from ..deploy.bench.engines import MNN, missing_engines
from ..deploy.bench.folder import find_candidates
from ..deploy.bench.layers import measure_layers
from ..deploy.bench.machine import usable_cores
from ..deploy.bench.run import BenchOptions, check_threads, run_bench
from ..detection import config
from ..detection.network import build_network
from ..errors import PipelineError
from ..report.bench import bench_table, layer_summary
from ..utils.files import write_text
from .bench_eval import DetectorEvaluation
from .bench_models import MNN_BLOCK, BenchModels, ModelMaker
from .build import build, make_recipe_plan, naming_recipe
from .commands import find_weights
from .schema import Recipe

_UNTRAINED = "untrained weights, pruned at once by magnitude: latency depends on shapes and zeros, not on training"


@dataclass(frozen=True)
class BenchRequest:
    """What is measured of a recipe, and how.

    Attributes:
        threads: the numbers of threads; by default 1 and the number of CPUs.
        seconds: wall time to spend on the measurement.
        ratios: target ratios, to which untrained weights are pruned at once; empty for the recipe's trained weights,
            or its own ratio if it has not been trained.
        blocks: rows and columns of the blocks of zeros; by default random zeros and MNN's blocks.
        evaluate: measure mAP through each runtime.
        export: `best` or `last`: the checkpoint; None for the reported one.
        layers: the file to write the times of the layers to; None leaves them out.
        log: receives a line for each step.
    """

    threads: Sequence[int] = ()
    seconds: float = 30.0
    ratios: Sequence[float] = ()
    blocks: Sequence[tuple[int, int]] = ()
    evaluate: bool = False
    export: str | None = None
    layers: Path | None = None
    log: Callable[[str], None] = lambda line: None

    def options(self, **further: Any) -> BenchOptions:
        """Returns the options of the measurement.

        Raises:
            InputError: more threads than CPUs.
        """
        cores = usable_cores()
        threads = tuple(dict.fromkeys(self.threads or (1, cores)))
        check_threads(threads, cores)
        return BenchOptions(threads, self.seconds, log=self.log, **further)


def bench_folder(folder: Path, request: BenchRequest) -> dict[str, Any]:
    """Measures the models in a folder.

    Returns:
        `machine`, `rows` and `notes`; see `run_bench`.

    Raises:
        InputError: nothing can be measured there.
    """
    options = request.options()
    candidates, notes = find_candidates(folder)
    return {**run_bench(candidates, options), "notes": [*notes, *missing_engines()]}


@naming_recipe
def bench_recipe(recipe: Recipe, request: BenchRequest) -> dict[str, Any]:
    """Measures the models of a recipe: of its trained weights, or else of untrained ones that are pruned at once.

    Returns:
        `machine`, `rows` and `notes`, see `run_bench`, and `layers` if they were asked for, see `measure_layers`.

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
        return measure_models(models, options, request)


def make_models(recipe: Recipe, maker: ModelMaker, request: BenchRequest) -> BenchModels:
    """Makes the models of a recipe that are measured, and notes what they are."""
    trained = None if request.ratios else find_weights(recipe, request.export)
    settings, made = recipe.pruning_config(), maker.made
    own_block = (settings.sparse_block[0], settings.sparse_block[1])
    blocks = dict.fromkeys(request.blocks or ((1, 1), MNN_BLOCK, own_block))
    if trained is None:
        made.notes.insert(0, _UNTRAINED)
        maker.add_dense(maker.initial("dense"))
        ratios = request.ratios or ([settings.ratio] if recipe.sparsity is not None else [])
        for ratio in ratios:
            for block in blocks:
                maker.add_sparse(maker.pruned(ratio, block))
        if not ratios:
            made.notes.append("a dense recipe: --ratio 0.75 measures pruned weights too")
        return made
    made.notes.insert(0, f"trained weights: {trained}")
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
            maker.add_sparse(maker.pruned(settings.ratio, block))
    return made


def measure_models(models: BenchModels, options: BenchOptions, request: BenchRequest) -> dict[str, Any]:
    """Measures models, and their layers if those were asked for."""
    result = {**run_bench(models.candidates, options), "notes": models.notes}
    if request.layers is not None:
        if not models.layer_models:
            raise PipelineError(f"--layers: needs {MNN.name}: pip install 'paddle_sparse_cb[{MNN.extra}]'")
        request.log("measuring the layers on MNN ...")
        result["layers"] = measure_layers(models.layer_models, models.dense, models.pruned)
        write_text(request.layers, json.dumps(result["layers"], indent=1) + "\n")
    return result


def render(result: dict[str, Any], as_json: bool) -> str:
    """Renders a result for standard output: the table with its captions, or `machine` and `rows` as JSON."""
    if as_json:
        return json.dumps({key: result[key] for key in ("machine", "rows")}, indent=1, allow_nan=False)
    parts = [bench_table(result)]
    if "layers" in result:
        parts.append(layer_summary(result["layers"]))
    return "\n\n".join(parts)


def check_speedup(result: dict[str, Any], least: float) -> None:
    """Checks the best speed-up over the fastest dense row with as many threads.

    Raises:
        PipelineError: it is below `least`, or nothing sparse was measured.
    """
    found = [row for row in result["rows"] if row["kind"] == "sparse" and row["speedup_fastest"] is not None]
    if not found:
        raise PipelineError("--fail-under: no sparse model was measured beside a dense one")
    best = max(found, key=lambda row: row["speedup_fastest"])
    if best["speedup_fastest"] < least:
        raise PipelineError(
            f"--fail-under: the best sparse model ({best['runtime']}, {best['ratio']:.1%} zeros, {best['threads']} "
            f"threads) is {best['speedup_fastest']:+.1%} over the fastest dense one, at least {least:+.1%} is required"
        )
