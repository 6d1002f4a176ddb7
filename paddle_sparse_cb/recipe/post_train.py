"""The post-train hooks of a recipe that know its network and data."""

from __future__ import annotations

from dataclasses import dataclass

import paddle

from ..callbacks.best_checkpoint import NAME as BEST
from ..checkpoints.verify import verify_checkpoints
from ..deploy.export import Export
from ..deploy.lite.optimizer import OptimizeLite
from ..deploy.manifest import record
from ..deploy.mnn.hook import ConvertMNN
from ..deploy.verify import fail_on_mismatch, print_verification, verify
from ..detection.infer_config import NAME as INFER_CONFIG
from ..hooks import Hook, HookContext
from ..pruning.statistics import measure_sparsity
from ..report.bench import bench_table
from ..report.schema import read_report
from ..report.table import report_table
from ..utils.distributed import is_distributed, is_rank_zero, rank_zero_info
from ..utils.weight_files import load_arrays
from .bench_hook import MeasureLatency
from .build import Run
from .log_results import LogResults
from .mnn import CompareBoxes
from .report_details import evaluation_file
from .report_pictures import COMPARISON
from .samples import AddSamples

_REPORTS = ("report.html", "report.md", "report.json")
_NB = ("model_dense.nb", "model_sparse.nb", "model_dense_fp16.nb", "model_sparse_fp16.nb")
_MNN = ("model.onnx", "model_dense.mnn", "model_sparse.mnn")
_OUTPUTS = (COMPARISON, *_REPORTS, "tensorboard", "checkpoints", "inference", *_NB, *_MNN)


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
        """Adds `mAP` and `AP50` to the metrics, and writes what was found on each image."""
        context.metrics.update(self.run.evaluate())
        if is_rank_zero() and self.run.metric.last is not None:
            kind = "sparse" if context.plan.pruned else "dense"
            self.run.metric.last.save(evaluation_file(context.output, kind))


@dataclass
class ExportDetector:
    """Exports the detector with its post-processing as the recipe's `export` block says, and `infer_cfg.yml`."""

    run: Run

    def __call__(self, context: HookContext) -> None:
        """Adds the artefact `inference`, and for MNN `inference_no_nms`: all boxes, decoded, and their scores."""
        for name, post_processing in self.run.exports.items():
            with self.run.network.export_mode(*self.run.recipe.input_size, **post_processing) as (detector, specs):
                Export(specs, detector, name)(context)
        context.references.update(self.run.references)  # Export's own would compute without the mode
        settings = context.artefacts["inference"].with_name(INFER_CONFIG)
        self.run.infer_config.write(settings)
        record(context.output, [settings])


def print_results(context: HookContext) -> None:
    """Prints the table of the report and the paths of the output."""
    report = read_report(context.output)
    print(f"\n{report_table(report)}\n")
    if report.get("bench"):
        print(f"{bench_table(report['bench'])}\n")
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
            "found": f"{count} checkpoints are complete",
            "scope": "digests of all files, zeros of the masks in the network and in the average, finite values",
            "ok": not problems,
        }


def hooks_after_export(run: Run) -> list[Hook]:
    """Returns the hooks from Paddle-Lite's optimizer to the verification and, on request, the latency."""
    block, options = run.recipe.mnn_block, run.recipe.content.get("export") or {}
    measure: list[Hook] = [MeasureLatency(run), run.report] if options.get("bench", False) else []
    return [
        OptimizeLite(run.recipe.lite_options),
        *([] if block is None else [ConvertMNN(block)]),
        *_verification(run),
        run.report,
        *measure,
        LogResults(run.recipe.curves),
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


def hooks_after_dense_training(run: Run) -> list[Hook]:
    """Returns the hooks of a dense recipe."""
    return [EvaluateNetwork(run), run.report, LogResults(run.recipe.curves), print_results]


def verify_hooks(run: Run) -> list[Hook]:
    """Returns the hooks of `paddle-sparse verify`."""
    return [*_verification(run), print_verification, fail_on_mismatch]


def _verification(run: Run) -> list[Hook]:
    compare = [] if run.recipe.mnn_block is None else [CompareBoxes(run)]
    return [VerifyCheckpoints(run), AddSamples(run), verify, *compare]
