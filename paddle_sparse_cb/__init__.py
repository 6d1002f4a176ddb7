"""Sparse training for `paddle.Model`, from the first step to the file that a phone loads.

Pruned weights are exactly zero at every stage, and each stage is verified: after every optimizer step, in every
checkpoint, in the exported program and in the optimized model.
"""

import zlib  # noqa: F401  before paddle: Paddle 2.6 exports zlib symbols that break a zlib loaded later
from typing import Any

from ._version import __version__
from .callbacks.best_checkpoint import BestCheckpoint
from .callbacks.checkpoint import Checkpoints
from .callbacks.curves import TrainingCurves
from .callbacks.distillation import Distillation
from .callbacks.early_stopping import SparseEarlyStopping
from .callbacks.ema import EMACallback
from .callbacks.resume import ResumableCallbacks, SkipBatchesLoader
from .callbacks.sparsity import SparsityCallback
from .checkpoints.position import ResumeState, TrainingPosition, find_checkpoint, last_checkpoint
from .errors import DivergenceError, InputError, PipelineError, RankMismatchError
from .hooks import HookContext
from .pruning.channel_permutation import permute_channels
from .pruning.config import PruningConfig
from .pruning.paddleslim_masks import apply_paddleslim_masks
from .pruning.planner import PrunePlan, make_plan
from .pruning.schedule import GMPSchedule
from .pruning.statistics import SparsityReport, measure_sparsity

__all__ = [
    "BestCheckpoint",
    "Checkpoints",
    "Distillation",
    "DivergenceError",
    "EMACallback",
    "GMPPruner",
    "GMPSchedule",
    "HookContext",
    "InputError",
    "PipelineError",
    "PrunePlan",
    "PruningConfig",
    "RankMismatchError",
    "ResumableCallbacks",
    "ResumeState",
    "SkipBatchesLoader",
    "SparseEarlyStopping",
    "SparsityCallback",
    "SparsityReport",
    "TrainingCurves",
    "TrainingPosition",
    "__version__",
    "apply_paddleslim_masks",
    "find_checkpoint",
    "last_checkpoint",
    "make_plan",
    "measure_sparsity",
    "permute_channels",
]


def __getattr__(name: str) -> Any:
    if name == "GMPPruner":  # on demand, because PaddleSlim takes seconds to import
        from .pruning.pruner import GMPPruner

        return GMPPruner
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
