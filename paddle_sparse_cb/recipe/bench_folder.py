"""`paddle-sparse bench FOLDER`: measures the models in a folder; needs no PaddleDetection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..deploy.bench.engines import missing_engines
from ..deploy.bench.folder import find_candidates
from ..deploy.bench.machine import usable_cores
from ..deploy.bench.probe import check_runnable
from ..deploy.bench.run import BenchOptions, check_threads, make_result, measure_rows
from ..errors import InputError
from ..utils.validation import check_fraction

SECONDS = 30.0  # for the measurement itself, by default
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
    seconds: float = SECONDS
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
    request.log("trying the models ...")
    check_runnable(candidates)
    return make_result(measure_rows(candidates, options), [*notes, *missing_engines()])
