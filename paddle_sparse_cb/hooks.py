"""What the steps after a training hand to each other."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable

import paddle

from .pruning.planner import PrunePlan
from .pruning.statistics import SparsityReport
from .utils.distributed import is_rank_zero


@dataclass
class HookContext:
    """A trained network and what has been made of it so far; each hook reads it and adds to it.

    Attributes:
        network: the network, finalized.
        output: the folder for everything that is made.
        plan: which weights are pruned.
        sparsity: the zeros counted in the network.
        target_ratio: the ratio that the training was for.
        metrics: evaluation of the final network, by name.
        artefacts: files made so far, by name: `pdparams`, `inference` (a prefix), `nb_dense`, `nb_sparse`.
        checks: what has been verified, by the artefact's name.
    """

    network: paddle.nn.Layer
    output: Path
    plan: PrunePlan
    sparsity: SparsityReport
    target_ratio: float
    metrics: dict[str, float] = field(default_factory=dict)
    artefacts: dict[str, Path] = field(default_factory=dict)
    checks: dict[str, Any] = field(default_factory=dict)


Hook = Callable[[HookContext], None]


def call_hooks(hooks: Iterable[Hook], context: HookContext) -> None:
    """Calls hooks in order: on rank 0 alone, but one with a true attribute `every_rank` on all ranks."""
    for hook in hooks:
        if is_rank_zero() or getattr(hook, "every_rank", False):
            hook(context)
