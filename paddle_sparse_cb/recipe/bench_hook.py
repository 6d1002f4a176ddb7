"""The hook that measures the latency of a trained recipe."""

from __future__ import annotations

from dataclasses import dataclass

import paddle

from ..hooks import HookContext
from ..utils.distributed import rank_zero_info
from ..utils.native_output import stdout_to_stderr
from .bench import bench_recipe
from .bench_folder import BenchRequest
from .build import Run


@dataclass
class MeasureLatency:
    """Post-train hook: measures the latency of the exported checkpoint on this machine, dense beside sparse.

    A recipe asks for it with `export: {bench: true}`. Each runtime that is installed is measured, on one thread and on
    all CPUs, as `paddle-sparse bench` does.

    Attributes:
        run: the run.
        seconds: wall time to spend on the measurement itself; the exports take about as long.
    """

    run: Run
    seconds: float = 10.0

    def __call__(self, context: HookContext) -> None:
        """Sets `context.bench` to `machine`, `rows` and `notes`, see `bench_recipe`."""
        rank_zero_info("measuring the latency on this machine ...")
        request = BenchRequest(seconds=self.seconds, weights=context.artefacts.get("pdparams"))
        with stdout_to_stderr(), paddle.utils.unique_name.guard():
            context.bench = bench_recipe(self.run.recipe, request)
