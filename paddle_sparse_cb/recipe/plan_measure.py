"""`paddle-sparse plan RECIPE --measure`: size and latency for several ratios and blocks, before anything is trained."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import paddle

from .._version import __version__
from ..deploy.bench.engines import MNN
from ..deploy.bench.machine import this_machine
from ..deploy.bench.run import BenchOptions, Candidate, make_result, measure_rows
from ..deploy.lite.optimizer import Optimizer, find_optimizer, optimize
from ..deploy.mnn.converter import convert
from ..deploy.onnx import export_onnx
from ..detection import config
from ..detection.network import build_network
from ..errors import InputError, PipelineError
from ..utils.result_cache import cached_result
from ..utils.validation import check_fraction
from .bench_models import UNTRAINED, ModelMaker, Weights, kernel_block
from .build import make_recipe_plan, naming_recipe
from .schema import Recipe

RATIOS = (0.6, 0.75, 0.85, 0.9)
BLOCKS = ((1, 1), (2, 1), (4, 1))


@dataclass(frozen=True)
class PlanRequest:
    """What is measured.

    Attributes:
        ratios: target ratios; with none, only the dense model is measured.
        blocks: rows and columns of the blocks of zeros.
        seconds: wall time to spend on the measurement itself, after exporting and converting.
        log: receives a line for each step.

    Raises:
        InputError: a ratio is out of range.
    """

    ratios: Sequence[float] = RATIOS
    blocks: Sequence[tuple[int, int]] = BLOCKS
    seconds: float = 20.0
    log: Callable[[str], None] = lambda line: None

    def __post_init__(self) -> None:
        for ratio in self.ratios:
            check_fraction("--ratio", ratio, least=0.01)


@dataclass(frozen=True)
class _Converted:
    """The files of one set of weights; `nb` is None without Paddle-Lite's optimizer."""

    candidate: Candidate
    nb: Path | None


@naming_recipe
def measure_plan(recipe: Recipe, request: PlanRequest) -> dict[str, Any]:
    """Prunes untrained weights by magnitude, exports and converts them, and measures them on MNN with one thread.

    The result is kept in the cache folder, for the same recipe, ratios, blocks, versions and machine, unless other work
    on this machine disturbed it.

    Returns:
        `machine`, `rows` and `notes`, see `make_result`; each row also has `nb_mb`, the size of the `.nb` file in 10^6
        bytes, which is None without Paddle-Lite's optimizer.

    Raises:
        InputError: MNN or its converter is missing, or the recipe cannot be built or exported.
        PipelineError: a conversion failed.
    """
    if MNN.version is None or find_spec("paddle2onnx") is None:
        raise InputError("--measure needs MNN and paddle2onnx: pip install 'paddle_sparse_cb[mnn]'")
    if recipe.sparsity is None and request.ratios:
        recipe = replace(recipe, sparsity={"prune_params_type": "conv1x1_only", "ratio": request.ratios[0]})
    optimizer, missing = _find_optimizer()
    key = {
        "recipe": recipe.digest,
        "ratios": list(request.ratios),
        "blocks": [list(block) for block in request.blocks],
        "versions": {"paddle": paddle.__version__, "MNN": MNN.version, "paddle_sparse_cb": __version__},
        "machine": this_machine().to_dict(),
        "nb": optimizer is not None,
    }
    result, is_cached = cached_result("plan", key, lambda: _measure(recipe, request, optimizer), _is_undisturbed)
    notes = [*result["notes"], *([missing] if missing else [])]
    if is_cached:
        notes.append("measured earlier on this machine, from the cache folder")
    elif not _is_undisturbed(result):
        notes.append("disturbed rows: not kept in the cache folder, the next call measures again")
    return {**result, "notes": notes}


def _is_undisturbed(result: dict[str, Any]) -> bool:
    return not any(row["disturbed"] for row in result["rows"])


def _find_optimizer() -> tuple[Optimizer | None, str]:
    try:
        return find_optimizer(), ""
    except PipelineError as error:
        return None, f"no sizes of .nb files: {error}"


def _measure(recipe: Recipe, request: PlanRequest, optimizer: Optimizer | None) -> dict[str, Any]:
    paddle.seed(recipe.seed)
    with config.convert_errors(recipe.files):
        network = build_network(config.load(recipe.content, recipe.files))
        plan = make_recipe_plan(recipe, network)
    with tempfile.TemporaryDirectory() as folder:
        maker = ModelMaker(recipe, network, plan, Path(folder), request.log)
        # The converters are processes of their own: the next weights are exported meanwhile.
        notes = []
        with ThreadPoolExecutor(1) as pool:
            dense = maker.initial()
            jobs = [pool.submit(_convert, dense, "dense", *maker.export(dense), optimizer)]
            for block in request.blocks:
                for ratio in request.ratios:
                    weights = maker.pruned(ratio, block)
                    try:
                        exported = maker.export(weights)
                    except InputError as error:  # the block divides no layer
                        notes.append(f"{ratio:.0%} in blocks of {block[0]}x{block[1]} was left out: {error}")
                        continue
                    jobs.append(pool.submit(_convert, weights, "sparse", *exported, optimizer))
            converted = [job.result() for job in jobs]
        candidates = [one.candidate for one in converted]
        rows = measure_rows(candidates, BenchOptions((1,), request.seconds, log=request.log))
        result = make_result(rows, notes)
        for row, one in zip(result["rows"], converted):
            row["nb_mb"] = None if one.nb is None else one.nb.stat().st_size / 1e6
        return result


def _convert(weights: Weights, kind: str, prefix: Path, ratio: float, optimizer: Optimizer | None) -> _Converted:
    sparse = kind == "sparse"
    onnx = export_onnx(prefix, Path(f"{prefix}.onnx"))
    mnn = convert(onnx, Path(f"{prefix}.mnn"), sparse=sparse, block=kernel_block(weights.block[0]))
    nb = optimize(prefix, Path(f"{prefix}.nb"), sparse=sparse, optimizer=optimizer) if optimizer else None
    return _Converted(Candidate(MNN, mnn, kind, ratio, weights.block, note=UNTRAINED), nb)
