"""`ConvertMNN`: the hook that makes MNN files of an exported model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version

from ...hooks import HookContext
from ...pruning.plan import PrunePlan
from ...utils.messages import logger
from ..isolated import require_modules
from ..manifest import exported_files, record
from ..onnx import export_onnx
from .check import source_model
from .constraints import check_block, check_operators, check_runs_sparse
from .converter import convert


def require_packages() -> None:
    """Raises PipelineError if a package of the extra `mnn` is missing."""
    require_modules("mnn", "paddle2onnx", "onnx", "MNN")


@dataclass
class ConvertMNN:
    """Post-train hook: converts the exported model to MNN.

    Writes `model.onnx`, `model_dense.mnn` and, if the plan prunes anything, `model_sparse.mnn` from the same weights.
    The exported model is the artefact `inference_no_nms` if there is one, and else `inference`. At train begin
    `SparsityCallback` calls `before_training`, so that a plan that MNN would run dense is refused before any weight has
    changed.

    Attributes:
        block: the number of output channels that MNN's kernels take together (see `converter.convert`). Above 1, the
            network must have been pruned in such blocks (`sparse_block`), since only zeros in whole blocks count.

    Raises:
        InputError: when created, the block is not one of `constraints.BLOCKS`; when called, nothing was exported, or
            an operator would be computed wrongly.
        PipelineError: when called, a package of the extra `mnn` is missing, or a conversion failed.
    """

    block: int = 1

    def __post_init__(self) -> None:
        check_block(self.block)

    def before_training(self, plan: PrunePlan, min_sparsity: Mapping[str, float]) -> None:
        """Raises InputError if a planned layer would run dense, and PipelineError if a package is missing."""
        require_packages()
        check_runs_sparse(plan, min_sparsity, self.block)

    def __call__(self, context: HookContext) -> None:
        """Adds the artefacts `onnx`, `mnn_dense` and `mnn_sparse`, also to the manifest."""
        logger.info("converting to MNN ...")
        source = source_model(context)
        require_packages()
        check_operators(source)
        onnx = context.artefacts["onnx"] = export_onnx(source, context.output / "model.onnx")
        record(context.output, [onnx], exported_files(source), {"paddle2onnx": version("paddle2onnx")})
        for kind in ("dense", "sparse") if context.plan.pruned else ("dense",):
            path = context.output / f"model_{kind}.mnn"
            made = convert(onnx, path, sparse=kind == "sparse", block=self.block)
            context.artefacts[f"mnn_{kind}"] = made
            record(context.output, [made], [onnx], {"MNN": version("MNN")})
