"""The GMP pruner: schedule, plan and masks on the parameters of a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable

import paddle
from paddleslim import GMPUnstructuredPruner

from . import masks
from .errors import InputError
from .schedule import GMPSchedule, check_count
from .selection import PrunePlan, make_plan
from .sparsity import SparsityReport, count_zeros, measure_sparsity, named_weights


class GMPPruner(GMPUnstructuredPruner):
    """PaddleSlim's `GMPUnstructuredPruner` with exact masks that act right after the optimizer step.

    The constructor and the methods are PaddleSlim's. Unlike it, this one adds no buffers to `state_dict` and no hooks
    to the layers, prunes exactly ceil(ratio * n) weights of a layer, keeps what is pruned pruned, and zeroes the
    weights in `step`, so that whoever looks between two steps sees the zeros.

    Args:
        model: the network.
        ratio: the target ratio.
        prune_params_type: see `make_plan`.
        skip_params_func: see `make_plan`.
        local_sparsity: each layer gets the ratio; otherwise one ranking over all layers decides.
        sparse_block: rows (output channels) and columns (input channels) of the blocks that are zeroed as one.
        configs: `stable_iterations`, `pruning_iterations`, `tunning_iterations`, `pruning_steps`, `initial_ratio`
            (see `GMPSchedule`) and optionally `resume_iteration`, the optimizer steps already done.
        plan: what to prune, in place of the rules above.

    Raises:
        InputError: an argument is out of its range, nothing is left to prune, or a layer is too small for the ratio.

    Example:
        >>> import paddle
        >>> network = paddle.nn.Conv2D(8, 8, 1)
        >>> optimizer = paddle.optimizer.SGD(0.1, parameters=network.parameters())
        >>> pruner = GMPPruner(network, ratio=0.75, prune_params_type="conv1x1_only", local_sparsity=True,
        ...                    configs={"pruning_iterations": 0, "pruning_steps": 1, "initial_ratio": 0.75})
        >>> pruner.attach(optimizer)
        >>> network(paddle.rand([1, 8, 4, 4])).sum().backward()
        >>> optimizer.step()
        >>> pruner.sparsity()
        0.75
    """

    def __init__(self, model: paddle.nn.Layer, ratio: float = 0.55, prune_params_type: str | None = None,
                 skip_params_func: Callable[[paddle.nn.Layer], set[str]] | None = None, local_sparsity: bool = False,
                 sparse_block: Sequence[int] = (1, 1), configs: dict[str, Any] | None = None,
                 plan: PrunePlan | None = None) -> None:
        # PaddleSlim's constructors are not called: they add the buffers, the hooks and the cut phases.
        settings = dict(configs or {})
        settings.pop("pruning_strategy", None)  # PaddleDetection names it; there is only one
        self.cur_iteration = check_count("resume_iteration", settings.pop("resume_iteration", 0) or 0)
        try:
            self.schedule = GMPSchedule(ratio=ratio, **settings)
        except TypeError as error:
            raise InputError(f"configs: {str(error).split('() ')[-1]}") from None
        self.model = model
        self.mode = "ratio"
        self.target_ratio = ratio
        self.local_sparsity = local_sparsity
        self.sparse_block = masks.check_block(sparse_block)
        self.plan = (plan or make_plan(model, prune_params_type=prune_params_type,
                                       skip_params_func=skip_params_func)).require_layers()
        self.ratio = self.schedule.at(self.cur_iteration - 1) if self.cur_iteration else 0.0
        wanted = {layer.name for layer in self.plan.pruned}
        named = {name: weight for name, _, weight in named_weights(model) if name in wanted}
        if wanted - named.keys():
            raise InputError(f"plan: the network has no weight {min(wanted - named.keys())!r}")
        self._check_sizes(named)
        self._weights = list(named.values())
        self._stale = self.cur_iteration > 0  # resumed: masks are due whether or not the ratio changes
        self.masks: dict[str, paddle.Tensor] = {}  # parameter.name -> bool, True where a weight lives

    def _check_sizes(self, named: dict[str, paddle.Tensor]) -> None:
        for name, weight in named.items():
            units = masks.block_scores(weight, self.sparse_block).shape[0]
            if masks.prune_count(self.target_ratio, units) >= units:
                raise InputError(f"ratio {self.target_ratio} would zero all {units} weights or blocks of {name}; "
                                 f"skip it (skip=[{name!r}])")

    def step(self) -> None:
        """Counts one optimizer step: renews the masks when the ratio rises, and zeroes the pruned weights."""
        ratio = self.schedule.at(self.cur_iteration)
        self.cur_iteration += 1
        self.update_params()  # first: momentum has just moved weights that are pruned, and they stay so
        if ratio != self.ratio or self._stale:
            self.ratio = ratio
            self._stale = False
            self._update_masks()
            self.update_params()

    @paddle.no_grad()
    def _update_masks(self) -> None:
        if self.ratio == 0:
            return
        scores = [masks.block_scores(weight, self.sparse_block) for weight in self._weights]
        if self.local_sparsity:
            marks = [masks.prune([score], self.ratio)[0] for score in scores]
        else:
            marks = masks.prune(scores, self.ratio)
        for weight, mark in zip(self._weights, marks):
            pruned = masks.spread(mark, weight.shape, self.sparse_block)
            self.masks[weight.name] = paddle.logical_not(pruned)

    @paddle.no_grad()
    def update_params(self) -> None:
        """Zeroes the pruned weights in place."""
        if not self.masks:
            return
        for weight in self._weights:
            weight.multiply_(self.masks[weight.name].astype(weight.dtype))

    def attach(self, optimizer: paddle.optimizer.Optimizer) -> None:
        """Has `step` called after each step of an optimizer, before anybody else can look at the weights.

        A step is one of the optimizer, not of the data: gradient accumulation counts right. A pruner that was
        attached before is detached.
        """
        self.detach(optimizer)
        depth = 0

        def stepping(original: Callable[..., Any]) -> Callable[..., Any]:
            def wrapped(*args: Any, **kwargs: Any) -> Any:
                nonlocal depth
                depth += 1
                try:
                    result = original(*args, **kwargs)
                finally:
                    depth -= 1
                if depth == 0:  # an optimizer's minimize may call its step
                    self.step()
                return result
            wrapped._gmp = True  # type: ignore[attr-defined]
            return wrapped

        for name in ("step", "minimize"):
            setattr(optimizer, name, stepping(getattr(optimizer, name)))

    @staticmethod
    def detach(optimizer: paddle.optimizer.Optimizer) -> None:
        """Gives an optimizer its own methods back."""
        for name in ("step", "minimize"):
            if hasattr(vars(optimizer).get(name), "_gmp"):
                delattr(optimizer, name)

    def sparsity(self) -> float:
        """Zeros over elements of the weights to prune, as they are now."""
        return sum(count_zeros(self._weights)) / sum(weight.size for weight in self._weights)

    def finalize(self) -> SparsityReport:
        """Zeroes the pruned weights once more and counts what is really there.

        Raises:
            RuntimeError: a weight that the masks prune is not zero.
        """
        self.update_params()
        report = measure_sparsity(self.model, self.plan)
        zeros = {layer.name: layer.zeros for layer in report.layers}
        for layer, weight in zip(self.plan.pruned, self._weights):
            mask = self.masks.get(weight.name)
            pruned = 0 if mask is None else int(paddle.logical_not(mask).astype("int64").sum())
            if zeros[layer.name] < pruned:
                raise RuntimeError(f"{layer.name}: {pruned} weights are pruned, but only {zeros[layer.name]} are zero")
        return report

    @staticmethod
    def total_sparse(model: paddle.nn.Layer) -> float:
        """Zeros over elements of all weights of a network."""
        return measure_sparsity(model).total_ratio

    @staticmethod
    def total_sparse_conv1x1(model: paddle.nn.Layer) -> float:
        """Zeros over elements of the 1x1 convolutions of a network."""
        weights = [weight for _, _, weight in named_weights(model) if list(weight.shape[2:]) == [1, 1]]
        return sum(count_zeros(weights)) / max(1, sum(weight.size for weight in weights))
