"""Sparse training for `paddle.Model`, down to the file that a phone loads.

A weight that is pruned is zero wherever anyone can look: after every optimizer step, in every checkpoint, in the
exported program and in the optimized model.
"""

import zlib  # noqa: F401  before paddle: Paddle 2.6 brings a zlib whose symbols break what loads the system's later
from typing import Any

from ._version import __version__
from .callbacks.best_checkpoint import BestCheckpoint, SparseEarlyStopping
from .callbacks.ema import EMACallback
from .callbacks.resume import ResumableCallbacks, SkipBatchesLoader, TrainingPosition
from .callbacks.sparsity import SparsityCallback
from .checkpoints.store import Checkpoints, last_checkpoint, read_position
from .errors import InputError
from .hooks import HookContext
from .pruning.paddleslim_masks import apply_paddleslim_masks
from .pruning.planner import PrunePlan, make_plan
from .pruning.schedule import GMPSchedule
from .pruning.statistics import SparsityReport, measure_sparsity

__all__ = [
    "BestCheckpoint",
    "Checkpoints",
    "EMACallback",
    "GMPPruner",
    "GMPSchedule",
    "HookContext",
    "InputError",
    "PrunePlan",
    "ResumableCallbacks",
    "SkipBatchesLoader",
    "SparseEarlyStopping",
    "SparsityCallback",
    "SparsityReport",
    "TrainingPosition",
    "__version__",
    "apply_paddleslim_masks",
    "last_checkpoint",
    "make_plan",
    "measure_sparsity",
    "read_position",
]


def __getattr__(name: str) -> Any:
    if name == "GMPPruner":  # on demand, because PaddleSlim takes seconds to import
        from .pruning.pruner import GMPPruner

        return GMPPruner
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
