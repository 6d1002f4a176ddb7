"""The interface between a training and what follows it: post-train hooks and the context they share.

The callbacks call the hooks, and `paddle_sparse_cb.deploy` provides most of them. Neither package may import the other,
so what both need is defined here.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable

import numpy as np
import paddle

from .pruning.plan import PrunePlan
from .pruning.statistics import SparsityReport
from .utils.distributed import is_rank_zero
from .utils.messages import logger


@dataclass
class HookContext:
    """A trained network and everything derived from it so far.

    Post-train hooks communicate through this object only: each hook reads what earlier hooks added, and adds its own
    results to `metrics`, `artefacts` or `checks`. `SparsityCallback` creates it when training ends; create one yourself
    to run hooks on a network that was trained elsewhere.

    Attributes:
        network: the trained network. Its pruned weights are exactly zero.
        output: the folder that hooks write to. It need not exist.
        plan: which weights are pruned, and why the others are not.
        sparsity: the zeros counted in each weight of `network`.
        target_ratio: the fraction of zeros the training aimed at, over all weights in `plan.pruned` together.
        metrics: evaluation results of `network` by name, such as `{"mAP": 0.29}`.
        artefacts: paths of the files made so far, by name. `Export` adds `inference` (a prefix without an extension),
            `QuantizeInt8` adds `inference_int8`, `OptimizeLite` adds `nb_dense` and `nb_sparse`, and the same
            with `nb_fp16_` and `nb_int8_`, `ConvertMNN` adds `onnx`, `mnn_dense` and `mnn_sparse`. Add a checkpoint as
            `pdparams` to have it verified too.
        checks: verification results by name, added by `verify`. Each is a JSON-serializable dict with a boolean `ok`.
        min_sparsity: the fraction of zeros that each planned weight must have at least, by structured name (see
            `PruningConfig.min_sparsity`). A weight that it does not name counts for `target_ratio` only.
        samples: real inputs for files that are run to verify their outputs: dicts from input name to array without the
            batch dimension. Without them, noise is used.
        references: what an exported artefact must compute, by its name: functions from its inputs by name to outputs.
            `Export` adds it. Without one, `network` is called with the inputs in order.
        bench: latencies: `machine`, `rows` and `notes`, JSON-serializable; empty if they were not measured.

    Examples:
        >>> from paddle_sparse_cb import make_plan, measure_sparsity
        >>> network = paddle.nn.Conv2D(8, 8, 1)
        >>> plan = make_plan(network)
        >>> context = HookContext(network, Path("output"), plan, measure_sparsity(network, plan), target_ratio=0.75)
        >>> def count_layers(context):
        ...     context.metrics["pruned layers"] = len(context.plan.pruned)
        >>> call_hooks([count_layers], context)
        >>> context.metrics
        {'pruned layers': 1}
    """

    network: paddle.nn.Layer
    output: Path
    plan: PrunePlan
    sparsity: SparsityReport
    target_ratio: float
    metrics: dict[str, float] = field(default_factory=dict)
    artefacts: dict[str, Path] = field(default_factory=dict)
    checks: dict[str, Any] = field(default_factory=dict)
    min_sparsity: Mapping[str, float] = field(default_factory=dict)
    samples: Sequence[Mapping[str, np.ndarray]] = ()
    references: dict[str, Callable[[Mapping[str, paddle.Tensor]], Any]] = field(default_factory=dict)
    bench: dict[str, Any] = field(default_factory=dict)


# Called with the context after training. A hook may also have
# - an attribute `every_rank = True`, if all ranks of a distributed training must call it;
# - a method `before_training(plan, min_sparsity)`, which `SparsityCallback` calls at train begin with the plan and the
#   least fraction of zeros that each planned weight will have. It raises InputError if the hook cannot use the result;
# - a method `check_network(network)`, which is called at train begin on rank 0 and raises what the hook would raise for
#   this network after the training.
Hook = Callable[[HookContext], None]


def call_hooks(hooks: Iterable[Hook], context: HookContext) -> None:
    """Calls hooks in order, each on rank 0 only unless it has a true attribute `every_rank`."""
    for hook in hooks:
        if is_rank_zero() or getattr(hook, "every_rank", False):
            start = time.perf_counter()
            hook(context)
            logger.debug(f"{getattr(hook, '__name__', type(hook).__name__)}: {time.perf_counter() - start:.1f} s")
