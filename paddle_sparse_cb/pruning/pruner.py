"""`GMPPruner`: schedule, plan and masks applied to the parameters of a network."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from typing import Any

import paddle

from ..errors import DivergenceError, PipelineError
from ..utils import distributed
from ..utils.finite import make_finite_check
from ..utils.validation import check_count, check_keys, check_same
from .distribution import check_scope, layer_ratios, overall_ratio
from .layer_masks import keep_layer_masks, mask_zeros
from .layer_settings import set_default_block
from .masks import check_block
from .min_sparsity import check_reachable
from .optimizer_hook import OptimizerHook, optimizer_tensors
from .paddleslim_interface import PaddleSlimInterface, resolve_params_type
from .planned_weights import find_planned_weights
from .planner import PrunePlan, make_plan
from .schedule import GMPSchedule
from .state import PrunerState, describe_settings, restore_masks
from .statistics import SparsityReport, count_zeros, measure_sparsity
from .zeroing import count_alive, make_zeroing

_SCHEDULE_KEYS = [field.name for field in fields(GMPSchedule) if field.name != "ratio"]


class GMPPruner(PaddleSlimInterface):
    """PaddleSlim's `GMPUnstructuredPruner` with exact masks that take effect right after the optimizer step.

    The constructor, `step`, `update_params`, `set_static_masks` and `total_sparse*` are PaddleSlim's. Unlike
    PaddleSlim's pruner, this one adds no buffers to `state_dict` and no hooks to the layers, prunes exactly
    ceil(ratio * n) weights of a layer, never revives a pruned weight unless `regrow` is set, and zeroes the weights in
    `step`, so that they are zero between two steps as well.

    Args:
        model: the network.
        ratio: the target ratio.
        prune_params_type: see `make_plan`.
        skip_params_func: see `make_plan`.
        local_sparsity: every layer is pruned to the ratio; otherwise one ranking over all layers decides.
        sparse_block: rows and columns of the blocks that are pruned as one: output and input channels of a
            convolution, inputs and outputs of a linear layer (as Paddle stores them). Layers that it does not divide
            are pruned as single weights.
        configs: `stable_iterations`, `pruning_iterations`, `tunning_iterations`, `pruning_steps`, `initial_ratio`,
            `curve` (see `GMPSchedule`) and optionally `resume_iteration`, the completed optimizer steps.
        plan: the layers to prune, in place of the rules above, with the ratios and blocks of single layers.
        scope: `uniform` or `global`, the same as `local_sparsity`, or `erk` (see `erk_ratios`).
        regrow: a pruned weight may be revived when the masks are updated, if its momentum has made it large.
        skip_params_type: former name of `prune_params_type`, used in PaddleDetection's documents: None, or
            `exclude_conv1x1`, which prunes 1x1 convolutions only.

    Raises:
        InputError: an argument is out of range, no layer is left to prune, or the ratio cannot be reached (see
            `check_reachable`).

    Examples:
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

    def __init__(
        self,
        model: paddle.nn.Layer,
        ratio: float = 0.55,
        prune_params_type: str | None = None,
        skip_params_func: Callable[[paddle.nn.Layer], set[str]] | None = None,
        local_sparsity: bool = False,
        sparse_block: Sequence[int] = (1, 1),
        configs: dict[str, Any] | None = None,
        plan: PrunePlan | None = None,
        scope: str | None = None,
        regrow: bool = False,
        skip_params_type: str | None = None,
    ) -> None:
        settings = dict(configs or {})
        settings.pop("pruning_strategy", None)  # PaddleDetection names it; there is only one
        self.cur_iteration = check_count("resume_iteration", settings.pop("resume_iteration", 0) or 0)
        check_keys(settings, [*_SCHEDULE_KEYS, "resume_iteration", "pruning_strategy"], "configs")
        self.schedule = GMPSchedule(ratio=ratio, **settings)
        self.model = model
        self.target_ratio = self.schedule.ratio
        self.local_sparsity = local_sparsity
        self.scope = check_scope(scope) or ("uniform" if local_sparsity else "global")
        self.regrow = regrow
        self.sparse_block = check_block(sparse_block)
        params_type = resolve_params_type(prune_params_type, skip_params_type)
        plan = plan or make_plan(model, prune_params_type=params_type, skip_params_func=skip_params_func)
        self.plan = set_default_block(plan.require_layers(), self.sparse_block)
        targets = {layer.ratio for layer in self.plan.pruned if layer.ratio is not None}
        self._schedules = {target: self.schedule.with_target(target) for target in sorted(targets)}
        # Of the layers without a ratio of their own, and from the others' targets to their ratios at present.
        self.ratio, self.own_ratios = self._ratios_after(self.cur_iteration)
        self.weights = find_planned_weights(model, self.plan)
        check_reachable(self.plan, self.target_ratio, self.scope, self.sparse_block)
        self._stale = self.cur_iteration > 0  # resumed: the masks are due even if the ratio stays the same
        self._optimizer: Any = None
        self._has_moments = False
        self.around_update: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
        self.masks: dict[str, paddle.Tensor] = {}  # parameter.name -> bool, True where a weight is kept
        # The calls that zero the weights and what the optimizer holds of them. Made again when the masks change and
        # after the first step of an optimizer, which creates its moments.
        self._zeroings: list[Callable[[], None]] | None = None
        self._finite: list[Callable[[], bool]] | None = None  # one per planned weight, made at the first mask update
        if not regrow:
            self.set_static_masks()

    @paddle.no_grad()
    def set_static_masks(self) -> None:
        """Masks the present zeros, so that an already sparse network keeps them from the first step on.

        A layer without zeros, or with nothing but zeros, gets no mask.
        """
        self.masks, self._zeroings = mask_zeros(self.weights), None

    def _ratios_after(self, steps: int) -> tuple[float, dict[float, float]]:
        own = {target: schedule.at(steps - 1) if steps else 0.0 for target, schedule in self._schedules.items()}
        return self.schedule.at(steps - 1) if steps else 0.0, own

    @property
    def overall_ratio(self) -> float:
        """The share of zeros in all planned weights together that the present ratios ask for."""
        return overall_ratio(self.plan.pruned, self.ratio, self.own_ratios)

    @property
    def overall_target(self) -> float:
        """The share of zeros in all planned weights together that the target ratios ask for."""
        return overall_ratio(self.plan.pruned, self.target_ratio)

    @property
    def is_at_target(self) -> bool:
        """Whether the masks are those of the target ratios."""
        is_own_at_target = all(ratio >= target for target, ratio in self.own_ratios.items())
        return self.ratio >= self.target_ratio and is_own_at_target and bool(self.masks)

    def step(self) -> None:
        """Counts one optimizer step: updates the masks when the ratio rises, and zeroes the pruned weights.

        Raises:
            DivergenceError: a weight is not finite at a mask update.
            RankMismatchError: the ranks of a distributed run have different masks.
        """
        self.cur_iteration += 1
        ratios = self._ratios_after(self.cur_iteration)
        update_masks = ratios != (self.ratio, self.own_ratios) or self._stale
        if not (update_masks and self.regrow):  # for regrowth, momentum has just moved the pruned weights
            self.update_params()
        if update_masks:
            self._check_finite(f"at optimizer step {self.cur_iteration}")  # before the masks are changed
            self.ratio, self.own_ratios = ratios
            self._stale = False
            with self.around_update():
                self.update_masks()
                self._check_ranks()
                self.update_params()

    def _check_finite(self, when: str) -> None:
        if self._finite is None:
            self._finite = [make_finite_check(weight) for weight in self.weights]
        for layer, is_finite in zip(self.plan.pruned, self._finite):
            if not is_finite():
                raise DivergenceError(f"the training diverged: {layer.name} is not finite {when}")

    @paddle.no_grad()
    def update_masks(self) -> None:
        """Chooses the masks of the present ratios from the present weights; `step` calls this when a ratio rises."""
        ratios = layer_ratios(self.plan.pruned, self.ratio, self.scope, self.own_ratios)
        if not any(ratios):
            return
        earlier = [self.masks.get(weight.name) for weight in self.weights]
        made = keep_layer_masks(self.plan.pruned, self.weights, ratios, self.scope, not self.regrow, earlier)
        if any(new is not old for new, old in zip(made, earlier)):
            self.masks = {weight.name: mask for weight, mask in zip(self.weights, made)}
            self._zeroings = None

    def _check_ranks(self) -> None:
        """Compares the masks of all ranks of a distributed run; costs nothing in a single process."""
        if distributed.is_distributed():
            distributed.check_same_masks(
                self.cur_iteration,
                [layer.name for layer in self.plan.pruned],
                [self.masks.get(weight.name) for weight in self.weights],
            )

    @paddle.no_grad()
    def update_params(self) -> None:
        """Zeroes the pruned weights in place, and with them what an attached optimizer holds of them."""
        if self._zeroings is None:
            self._zeroings = [
                make_zeroing(tensor, self.masks[weight.name])
                for weight in self.weights
                if weight.name in self.masks
                for tensor in (weight, *self.optimizer_tensors(weight))
            ]
        for zero in self._zeroings:
            zero()

    def optimizer_tensors(self, weight: paddle.Tensor) -> Iterator[paddle.Tensor]:
        """Yields what is zeroed with a weight: its fp32 master copy and, unless `regrow` is set, its moments."""
        return optimizer_tensors(self._optimizer, weight, moments=not self.regrow)

    def attach(self, optimizer: paddle.optimizer.Optimizer) -> None:
        """Calls `step` after each completed step of an optimizer, before any other code can see the weights.

        Micro-batches of a gradient accumulation and steps that AMP's scaler skipped because of an overflow do not
        count. A pruner that was attached before is detached.
        """
        self.detach(optimizer)
        self._optimizer, self._has_moments = optimizer, False
        OptimizerHook.of(optimizer).add(self._after_optimizer_step, first=True)

    def _after_optimizer_step(self) -> None:
        if not self._has_moments:  # the optimizer has created its moments in its first step
            self._has_moments, self._zeroings = True, None
        try:
            self.step()
        except PipelineError:  # the training ends here, and the optimizer may be used for another one
            self.detach(self._optimizer)
            raise

    @staticmethod
    def detach(optimizer: paddle.optimizer.Optimizer) -> None:
        """Detaches any pruner from an optimizer; does nothing if there is none."""
        hook = OptimizerHook.attached_to(optimizer)
        for listener in hook.listeners if hook else ():
            if hook and isinstance(getattr(listener, "__self__", None), GMPPruner):
                hook.remove(listener)

    def settings(self) -> dict[str, Any]:
        """Returns what a resumed run must have in common with this one; plain values."""
        return describe_settings(self.plan, self.schedule, self.scope, self.regrow)

    def state(self) -> PrunerState:
        """Returns what this pruner knows beside the weights, to be saved with them."""
        kept = {
            layer.name: self.masks[weight.name].numpy()
            for layer, weight in zip(self.plan.pruned, self.weights)
            if weight.name in self.masks
        }
        return PrunerState(self.cur_iteration, self.settings(), kept)

    def restore(self, state: PrunerState, where: str = "resume", allow_config_change: bool = False) -> None:
        """Continues from a saved state, on the weights that were saved with it.

        Args:
            state: the state of a pruner with the same settings.
            where: the file of the state, for messages.
            allow_config_change: schedule, scope, ratios and blocks may differ; pruned weights stay pruned, with other
                blocks those in blocks that are pruned completely.

        Raises:
            InputError: the settings differ, or a weight is not zero where the masks prune it.
        """
        settings = self.settings()
        saved = {**settings, "plan": state.settings.get("plan")} if allow_config_change else state.settings
        check_same(saved, settings, where)
        restored = restore_masks(state, self.plan, self.weights, where)
        self.masks, self._zeroings, self._stale = restored, None, allow_config_change
        self.cur_iteration = state.step
        self.ratio, self.own_ratios = self._ratios_after(state.step)

    def sparsity(self) -> float:
        """Returns zeros over elements of the weights to prune, as they are now."""
        return sum(count_zeros(self.weights)) / sum(weight.size for weight in self.weights)

    def count_alive(self) -> dict[str, int]:
        """Counts the weights that are not zero though the masks prune them, by layer; empty if all are zero."""
        counts = {
            layer.name: count_alive(weight, self.masks[weight.name])
            for layer, weight in zip(self.plan.pruned, self.weights)
            if weight.name in self.masks
        }
        return {name: count for name, count in counts.items() if count}

    def finalize(self) -> SparsityReport:
        """Zeroes the pruned weights once more and counts the zeros in the network.

        Raises:
            DivergenceError: a weight is not finite.
            RuntimeError: a weight that the masks prune is not zero.
        """
        self.update_params()
        report = measure_sparsity(self.model, self.plan)
        self._check_finite(f"after {self.cur_iteration} steps")
        for name, count in self.count_alive().items():
            raise RuntimeError(f"{name}: {count} weights are not zero though the masks prune them")
        return report
