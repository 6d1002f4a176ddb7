"""The post-train hooks of a recipe that know its network and data."""

from __future__ import annotations

from dataclasses import dataclass

import paddle

from ..callbacks.best_checkpoint import NAME as BEST
from ..checkpoints.verify import verify_checkpoints
from ..deploy.export import Export
from ..deploy.lite.optimizer import OptimizeLite
from ..deploy.manifest import record
from ..deploy.verify import fail_on_mismatch, print_verification, verify
from ..detection.infer_config import NAME as INFER_CONFIG
from ..hooks import Hook, HookContext
from ..pruning.statistics import measure_sparsity
from ..report.schema import read_report
from ..report.table import report_table
from ..utils.distributed import is_distributed, rank_zero_info
from ..utils.weight_files import load_arrays
from .build import Run

_OUTPUTS = ("report.md", "report.json", "tensorboard", "checkpoints", "inference", "model_dense.nb", "model_sparse.nb")


@dataclass
class SelectCheckpoint:
    """Loads the checkpoint that is exported and reported: the best one at the target ratio, or the last one.

    Attributes:
        run: the run.
        export: `best` or `last`; without evaluations during the training there is only the last one.
    """

    run: Run
    export: str
    every_rank = True

    def __call__(self, context: HookContext) -> None:
        """Sets the artefact `pdparams`, and loads the network from it."""
        if is_distributed():
            paddle.distributed.barrier()  # rank 0 has written what all ranks read
        weights = self.run.recipe.checkpoint(self.export)
        self.run.report.checkpoint = weights.stem
        context.artefacts["pdparams"] = weights
        if weights.stem == BEST:
            rank_zero_info(f"exporting the best checkpoint, {weights} (--export last exports the last one)")
            context.network.set_state_dict(load_arrays(weights))
            context.sparsity = measure_sparsity(context.network, context.plan)


@dataclass
class EvaluateNetwork:
    """Measures the network."""

    run: Run
    every_rank = True

    def __call__(self, context: HookContext) -> None:
        """Adds `mAP` and `AP50` to the metrics."""
        context.metrics.update(self.run.evaluate())


@dataclass
class ExportDetector:
    """Exports the detector with its post-processing as the recipe's `export` block says, and `infer_cfg.yml`."""

    run: Run

    def __call__(self, context: HookContext) -> None:
        """Adds the artefact `inference`."""
        options = self.run.recipe.content.get("export") or {}
        post_processing = {key: options[key] for key in ("post_process", "nms") if key in options}
        with self.run.network.export_mode(*self.run.recipe.input_size, **post_processing) as (detector, specs):
            Export(specs, detector)(context)
        settings = context.artefacts["inference"].with_name(INFER_CONFIG)
        self.run.infer_config.write(settings)
        record(context.output, [settings])


def print_results(context: HookContext) -> None:
    """Prints the table of the report and the paths of the output."""
    print(f"\n{report_table(read_report(context.output))}\n")
    for name in _OUTPUTS:
        if (context.output / name).exists():
            print(f"  {context.output / name}")


@dataclass
class VerifyCheckpoints:
    """Verifies all checkpoints of the recipe."""

    run: Run

    def __call__(self, context: HookContext) -> None:
        """Adds `checkpoints` to the checks: a dict with `problems` (one line each) and `ok`."""
        count, problems = verify_checkpoints(self.run.recipe.checkpoints)
        context.checks["checkpoints"] = {
            "problems": problems,
            "found": f"{count} checkpoints",
            "scope": "digests of all files, zeros of the masks in the network and in the average, finite values",
            "ok": not problems,
        }


def hooks_after_export(run: Run) -> list[Hook]:
    """Returns the hooks from Paddle-Lite's optimizer to the verification."""
    return [
        OptimizeLite(run.recipe.lite_options),
        VerifyCheckpoints(run),
        verify,
        run.report,
        print_results,
        fail_on_mismatch,
    ]


def hooks_after_training(run: Run, export: str) -> list[Hook]:
    """Returns the hooks of a sparse recipe; the report is written before Paddle-Lite too, whose optimizer may lack."""
    return [
        SelectCheckpoint(run, export),
        EvaluateNetwork(run),
        ExportDetector(run),
        run.report,
        *hooks_after_export(run),
    ]


def verify_hooks(run: Run) -> list[Hook]:
    """Returns the hooks of `paddle-sparse verify`."""
    return [VerifyCheckpoints(run), verify, print_verification, fail_on_mismatch]
