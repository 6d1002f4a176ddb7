"""Sparse training for `paddle.Model`, down to the file that a phone loads.

A weight that is pruned is zero wherever anyone can look: after every optimizer step, in every checkpoint, in the
exported program and in the optimized model.
"""

import zlib  # noqa: F401  before paddle: Paddle 2.6 brings a zlib whose symbols break what loads the system's later
from typing import Any

from ._version import __version__
from .adopted import adopt_masks
from .best import BestCheckpoint, SparseEarlyStopping
from .callback import SparsityCallback
from .checkpoint import Checkpoints, last_checkpoint, saved_place
from .context import HookContext
from .ema import EMACallback
from .errors import InputError
from .onward import Onward, Place, Replay
from .schedule import GMPSchedule
from .selection import PrunePlan, make_plan
from .sparsity import SparsityReport, measure_sparsity

__all__ = ["BestCheckpoint", "Checkpoints", "EMACallback", "GMPPruner", "GMPSchedule", "HookContext", "InputError",
           "Onward", "Place", "PrunePlan", "Replay", "SparseEarlyStopping", "SparsityCallback", "SparsityReport",
           "__version__", "adopt_masks", "last_checkpoint", "make_plan", "measure_sparsity", "saved_place"]


def __getattr__(name: str) -> Any:
    if name == "GMPPruner":  # on demand, because PaddleSlim takes seconds to import
        from .pruner import GMPPruner

        return GMPPruner
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
