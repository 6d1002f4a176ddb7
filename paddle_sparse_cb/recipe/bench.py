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
from ..deploy.bench.run import BenchOptions, check_threads, make_result, measure_rows
from ..detection import config
from ..detection.network import build_network
from ..errors import InputError, PipelineError
from ..report.bench import bench_captions, bench_table, layer_summary
from ..utils.files import write_text
from ..utils.validation import check_fraction
from .bench_eval import DetectorEvaluation
from .bench_models import AT_ONCE, MNN_BLOCK, BenchModels, ModelMaker
from .build import build, find_weights, make_recipe_plan, naming_recipe
from .schema import Recipe

_MAX_SECONDS = 86400


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
        weights: the trained weights; None for those that `export` selects.
        layers: the file to write the times of the layers to, by default `layers.json` in the recipe's output folder
            (an empty name); None leaves them out.
        log: receives a line for each step.
    """

    threads: Sequence[int] = ()
    seconds: float = 30.0
    ratios: Sequence[float] = ()
    blocks: Sequence[tuple[int, int]] = ()
    evaluate: bool = False
    export: str | None = None
    weights: Path | None = None
    layers: str | None = None
    log: Callable[[str], None] = lambda line: None

    def options(self, **further: Any) -> BenchOptions:
        """Returns the options of the measurement.

        Raises:
            InputError: more threads than CPUs, or a value out of range.
        """
        if not 0 < self.seconds < _MAX_SECONDS:
            raise InputError(f"--seconds must be above 0 and below {_MAX_SECONDS}, got {self.seconds:g}")
        for ratio in self.ratios:
            check_fraction("--ratio", ratio, least=0.01)
        cores = usable_cores()
        threads = tuple(dict.fromkeys(self.threads or (1, cores)))
        check_threads(threads, cores)
        return BenchOptions(threads, self.seconds, log=self.log, **further)


def bench_folder(folder: Path, request: BenchRequest) -> dict[str, Any]:
    """Measures the models in a folder.

    Returns:
        `machine`, `rows` and `notes`; see `make_result`.

    Raises:
        InputError: nothing can be measured there.
    """
    options = request.options()
    for flag, value in (
        ("--layers", request.layers is not None),
        ("--eval", request.evaluate),
        ("--ratio", request.ratios),
    ):
        if value:
            raise InputError(f"{flag}: {folder} is a folder of models; this needs a recipe")
    candidates, notes = find_candidates(folder)
    return make_result(measure_rows(candidates, options), [*notes, *missing_engines()])


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


def render(result: dict[str, Any], as_json: bool) -> str:
    """Renders a result for standard output: the table with its captions, or `machine` and `rows` as JSON."""
    if as_json:
        return json.dumps({key: result[key] for key in ("machine", "rows")}, indent=1, allow_nan=False)
    parts = [bench_table(result)]
    if "layers" in result:
        parts.append(layer_summary(result["layers"]))
    return "\n\n".join(parts)


def render_captions(result: dict[str, Any]) -> str:
    """Renders the lines that `render` shows below the table, one each."""
    return "\n".join(bench_captions(result))


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
            f"--fail-under: the best sparse model ({best['runtime']}, blocks {'x'.join(map(str, best['block']))}, "
            f"{best['threads']} threads) is {best['speedup_fastest']:+.1%} over the fastest dense one, at least "
            f"{least:+.1%} is required{' (disturbed by other work)' if best['disturbed'] else ''}"
        )
