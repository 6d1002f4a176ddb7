"""Sparse training for `paddle.Model`, from the first step to the file that a phone loads.

Pruned weights are exactly zero at every stage, and each stage is verified: after every optimizer step, in every
checkpoint, in the exported program and in the optimized model.
"""

import zlib  # noqa: F401  before paddle: Paddle 2.6 exports zlib symbols that break a zlib loaded later
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__
from .utils.post_import import after_import

if TYPE_CHECKING:
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
    from .pruning.allocation import allocate_ratios
    from .pruning.channel_permutation import permute_channels
    from .pruning.config import PruningConfig
    from .pruning.paddleslim_masks import apply_paddleslim_masks
    from .pruning.planner import PrunePlan, make_plan
    from .pruning.pruner import GMPPruner
    from .pruning.schedule import GMPSchedule
    from .pruning.sensitivity_measure import measure_sensitivity
    from .pruning.statistics import SparsityReport, measure_sparsity
    from .recipe.predict import Detector

__all__ = [
    "BestCheckpoint",
    "Checkpoints",
    "Detector",
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
    "allocate_ratios",
    "apply_paddleslim_masks",
    "find_checkpoint",
    "last_checkpoint",
    "make_plan",
    "measure_sensitivity",
    "measure_sparsity",
    "permute_channels",
]

# Where each public name is. Modules are imported when a name is used: Paddle, PaddleSlim and ppdet take seconds, which
# the command line's help and `paddle_sparse_cb.__version__` need not wait for.
_MODULES = {
    "BestCheckpoint": "callbacks.best_checkpoint",
    "Checkpoints": "callbacks.checkpoint",
    "Detector": "recipe.predict",
    "Distillation": "callbacks.distillation",
    "DivergenceError": "errors",
    "EMACallback": "callbacks.ema",
    "GMPPruner": "pruning.pruner",
    "GMPSchedule": "pruning.schedule",
    "HookContext": "hooks",
    "InputError": "errors",
    "PipelineError": "errors",
    "PrunePlan": "pruning.planner",
    "PruningConfig": "pruning.config",
    "RankMismatchError": "errors",
    "ResumableCallbacks": "callbacks.resume",
    "ResumeState": "checkpoints.position",
    "SkipBatchesLoader": "callbacks.resume",
    "SparseEarlyStopping": "callbacks.early_stopping",
    "SparsityCallback": "callbacks.sparsity",
    "SparsityReport": "pruning.statistics",
    "TrainingCurves": "callbacks.curves",
    "TrainingPosition": "checkpoints.position",
    "allocate_ratios": "pruning.allocation",
    "apply_paddleslim_masks": "pruning.paddleslim_masks",
    "find_checkpoint": "checkpoints.position",
    "last_checkpoint": "checkpoints.position",
    "make_plan": "pruning.planner",
    "measure_sensitivity": "pruning.sensitivity_measure",
    "measure_sparsity": "pruning.statistics",
    "permute_channels": "pruning.channel_permutation",
}

# The callbacks wrap `paddle.Model.fit`, which has to happen before `model.fit` is looked up: in
# `model.fit(callbacks=[paddle_sparse_cb.SparsityCallback()])` that is before the callback's name is used.
after_import("paddle", lambda: import_module(".callbacks.session", __name__))


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
