"""The GMP pruner: schedule, plan and masks on the parameters of a network."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import paddle
from paddleslim import GMPUnstructuredPruner

from ..checkpoints.state import PruningState, check_same
from ..errors import InputError, PipelineError
from ..utils import distributed as ranks
from ..utils.finite import make_finite_check
from ..utils.float_bits import magnitude_bits
from ..utils.layers import named_weights
from ..utils.validation import check_count
from . import masks
from .distribution import check_scope, layer_ratios
from .planner import PrunePlan, make_plan
from .schedule import GMPSchedule
from .statistics import SparsityReport, count_zeros, measure_sparsity
from .zeroing import zeroing


class GMPPruner(GMPUnstructuredPruner):
    """PaddleSlim's `GMPUnstructuredPruner` with exact masks that act right after the optimizer step.

    The constructor, `step`, `update_params`, `set_static_masks` and `total_sparse*` are PaddleSlim's. Unlike it, this
    one adds no buffers to `state_dict` and no hooks to the layers, prunes exactly ceil(ratio * n) weights of a layer,
    keeps what is pruned pruned, and zeroes the weights in `step`, so that whoever looks between two steps sees the
    zeros.

    Args:
        model: the network.
        ratio: the target ratio.
        prune_params_type: see `make_plan`.
        skip_params_func: see `make_plan`.
        local_sparsity: each layer gets the ratio; otherwise one ranking over all layers decides.
        sparse_block: rows and columns of the blocks that are zeroed as one: of a convolution, output and input
            channels; of a linear layer, inputs and outputs, as Paddle stores them.
        configs: `stable_iterations`, `pruning_iterations`, `tunning_iterations`, `pruning_steps`, `initial_ratio`,
            `curve` (see `GMPSchedule`) and optionally `resume_iteration`, the optimizer steps already done.
        plan: what to prune, in place of the rules above.
        scope: `local` or `global`, which `local_sparsity` says too, or `erk` (see `erk_ratios`).
        regrow: a pruned weight may come back when the masks are renewed, if its momentum has made it large. Without
            it what is pruned stays pruned.

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
                 plan: PrunePlan | None = None, scope: str | None = None, regrow: bool = False) -> None:
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
        self.threshold = 0.0  # PaddleSlim's; here no threshold decides, but a count
        self.target_ratio = ratio
        self.local_sparsity = local_sparsity
        self.scope = check_scope(scope) or ("local" if local_sparsity else "global")
        self.regrow = regrow
        self.sparse_block = masks.check_block(sparse_block)
        self.plan = (plan or make_plan(model, prune_params_type=prune_params_type,
                                       skip_params_func=skip_params_func)).require_layers()
        self.ratio = self.schedule.at(self.cur_iteration - 1) if self.cur_iteration else 0.0
        self._weights = self._planned_weights()
        self._check_sizes()
        self._stale = self.cur_iteration > 0  # resumed: masks are due whether or not the ratio changes
        self._optimizer: Any = None
        self.masks: dict[str, paddle.Tensor] = {}  # parameter.name -> bool, True where a weight lives
        # What zeroes the weights and what the optimizer holds of them. Made anew when the masks change, and after the
        # first step of an optimizer, which makes its moments.
        self._zeroings: list[Callable[[], None]] | None = None
        self._finite: list[Callable[[], bool]] | None = None  # for each planned weight, made at the first update
        if not regrow:
            self.set_static_masks()

    @paddle.no_grad()
    def set_static_masks(self) -> None:
        """Masks the zeros that are there, so that an already sparse network keeps them from the first step on.

        A layer without zeros, or of nothing else, gets no mask.
        """
        zeros = count_zeros(self._weights)
        self.masks = {weight.name: magnitude_bits(weight) != 0 for weight, count in zip(self._weights, zeros)
                      if 0 < count < weight.size}
        self._zeroings = None

    def _planned_weights(self) -> list[paddle.Tensor]:
        named = {name: weight for name, _, weight in named_weights(self.model)}
        for layer in self.plan.pruned:
            if layer.name not in named or tuple(named[layer.name].shape) != layer.shape:
                raise InputError(f"plan: the network has no weight {layer.name!r} of shape {list(layer.shape)}")
        return [named[layer.name] for layer in self.plan.pruned]

    def _check_sizes(self) -> None:
        if self.scope == "global":
            return
        for layer, ratio in zip(self.plan.pruned, self._ratios(self.target_ratio)):
            units = masks.count_units(layer.shape, self.sparse_block)
            if masks.prune_count(ratio, units) >= units:
                raise InputError(f"ratio {self.target_ratio} would zero all {units} weights or blocks of "
                                 f"{layer.name}; skip it (skip=[{layer.name!r}])")

    def _ratios(self, ratio: float) -> list[float]:
        """The ratio of each planned weight, unless one ranking decides."""
        return layer_ratios([layer.shape for layer in self.plan.pruned], ratio, self.scope)

    @property
    def skip_params(self) -> set[str]:
        """PaddleSlim's: names of the parameters, and of the normalization layers, that are not pruned."""
        pruned = {weight.name for weight in self._weights}
        norms = {layer.full_name() for layer in self.model.sublayers() if "Norm" in type(layer).__name__}
        return norms | {parameter.name for parameter in self.model.parameters() if parameter.name not in pruned}

    @property
    def ratios_stack(self) -> list[float]:
        """PaddleSlim's: the ratios still to come, one a stair, the next one last."""
        schedule = self.schedule
        stair = max(1, schedule.pruning_iterations // schedule.pruning_steps)
        end = schedule.target_step + schedule.tunning_iterations
        first = -(-self.cur_iteration // stair) * stair
        return [schedule.at(step) for step in range(first, end, stair)][::-1]

    def step(self) -> None:
        """Counts one optimizer step: renews the masks when the ratio rises, and zeroes the pruned weights.

        Raises:
            PipelineError: the training diverged, or the ranks have parted.
        """
        ratio = self.schedule.at(self.cur_iteration)
        self.cur_iteration += 1
        renew = ratio != self.ratio or self._stale
        if not (renew and self.regrow):  # momentum has just moved weights that are pruned, and they stay so
            self.update_params()
        if renew:
            self._require_finite(f"at optimizer step {self.cur_iteration}")  # the masks stay as they were
            self.ratio = ratio
            self._stale = False
            self._update_masks()
            self._compare_ranks()
            self.update_params()

    def _require_finite(self, when: str) -> None:
        if self._finite is None:
            self._finite = [make_finite_check(weight) for weight in self._weights]
        for layer, finite in zip(self.plan.pruned, self._finite):
            if not finite():
                raise PipelineError(f"the training diverged: {layer.name} is not finite {when}")

    @paddle.no_grad()
    def _update_masks(self) -> None:
        if self.ratio == 0:
            return
        earlier = [self.masks.get(weight.name) for weight in self._weights]
        keep = functools.partial(masks.keep_masks, block=self.sparse_block, monotone=not self.regrow)
        if self.scope == "global":
            made = keep(self._weights, self.ratio, out=earlier)
        else:
            made = [keep([weight], ratio, out=[mask])[0]
                    for weight, ratio, mask in zip(self._weights, self._ratios(self.ratio), earlier)]
        if any(new is not old for new, old in zip(made, earlier)):
            self.masks = {weight.name: mask for weight, mask in zip(self._weights, made)}
            self._zeroings = None

    def _compare_ranks(self) -> None:
        """Makes sure that all ranks of a distributed training have the same masks; costs nothing in one process."""
        if self.masks and ranks.is_distributed():
            ranks.check_same_masks(self.cur_iteration, [layer.name for layer in self.plan.pruned],
                                     [self.masks[weight.name] for weight in self._weights])

    @paddle.no_grad()
    def update_params(self) -> None:
        """Zeroes the pruned weights in place, and with them what an attached optimizer holds of them."""
        if self._zeroings is None:
            self._zeroings = [zeroing(tensor, self.masks[weight.name]) for weight in self._weights
                              if weight.name in self.masks for tensor in (weight, *self._held(weight))]
        for zero in self._zeroings:
            zero()

    def _held(self, weight: paddle.Tensor) -> Iterator[paddle.Tensor]:
        """An optimizer's fp32 master copy of a weight and its moments; the moments are what regrowth goes by."""
        if self._optimizer is None:
            return
        inner = getattr(self._optimizer, "_inner_opt", self._optimizer)
        master = getattr(inner, "_master_weights", {}).get(weight.name)
        if master is not None:
            yield master
        owner = weight if master is None else master  # whose moments go by the master's name
        if not self.regrow:
            for moments in inner._accumulators.values():
                moment = moments.get(owner.name)
                if moment is not None and moment.shape == weight.shape:
                    yield moment

    def attach(self, optimizer: paddle.optimizer.Optimizer) -> None:
        """Has `step` called after each step of an optimizer, before anybody else can look at the weights.

        A step is one of the optimizer, not of the data: gradient accumulation counts right, and a step that AMP's
        scaler skipped for an overflow does not count. A pruner that was attached before is detached.
        """
        self.detach(optimizer)
        self._optimizer = optimizer
        depth, started = 0, False

        def stepping(original: Callable[..., Any]) -> Callable[..., Any]:
            def wrapped(*args: Any, **kwargs: Any) -> Any:
                nonlocal depth, started
                depth += 1
                try:
                    result = original(*args, **kwargs)
                finally:
                    depth -= 1
                if depth == 0 and not _skipped(optimizer):  # an optimizer's minimize may call its step
                    if not started:  # its first step here has made its moments
                        started, self._zeroings = True, None
                    try:
                        self.step()
                    except PipelineError:  # it ends the training; the next one of this optimizer is its own
                        self.detach(optimizer)
                        raise
                return result
            wrapped._gmp = self  # type: ignore[attr-defined]
            return wrapped

        for name in ("step", "minimize"):
            setattr(optimizer, name, stepping(getattr(optimizer, name)))

    @staticmethod
    def detach(optimizer: paddle.optimizer.Optimizer) -> None:
        """Gives an optimizer its own methods back."""
        for name in ("step", "minimize"):
            if hasattr(vars(optimizer).get(name), "_gmp"):
                delattr(optimizer, name)

    def settings(self) -> dict[str, Any]:
        """What has to be equal for another pruner to go on from this one's state; plain values."""
        return {"plan": {layer.name: list(layer.shape) for layer in self.plan.pruned},
                "schedule": asdict(self.schedule), "scope": self.scope, "regrow": self.regrow,
                "sparse_block": list(self.sparse_block)}

    def state(self) -> PruningState:
        """What this pruner knows beside the weights, to be saved with them (`save_state`)."""
        kept = {layer.name: self.masks[weight.name].numpy()
                for layer, weight in zip(self.plan.pruned, self._weights) if weight.name in self.masks}
        return PruningState(self.cur_iteration, self.settings(), kept)

    def restore(self, state: PruningState, where: str = "resume", changed: bool = False) -> None:
        """Goes on from a state, on weights that were saved with it.

        Args:
            state: of a pruner with the same settings (`load_state`).
            where: its file, for messages.
            changed: the schedule may be another one, and the scope; what is pruned stays so.

        Raises:
            InputError: the settings differ, or the weights have values where the masks prune.
        """
        mine = self.settings()
        theirs = {**mine, "plan": state.settings.get("plan")} if changed else state.settings
        check_same(theirs, mine, where)
        made = {}
        for layer, weight in zip(self.plan.pruned, self._weights):
            if layer.name not in state.masks:
                continue
            mask = paddle.to_tensor(state.masks[layer.name], place=weight.place)
            if tuple(mask.shape) != layer.shape:
                raise InputError(f"{where}: its mask of {layer.name} has shape {mask.shape}, the weight "
                                 f"{list(layer.shape)}")
            alive = int(paddle.logical_and(magnitude_bits(weight) != 0, paddle.logical_not(mask)).astype("int64").sum())
            if alive:
                raise InputError(f"{where}: not the state of these weights: {alive} of {layer.name} are not zero where "
                                 "it prunes; load the checkpoint beside it")
            made[weight.name] = mask
        self.masks, self._zeroings, self._stale = made, None, changed
        self.cur_iteration = state.step
        self.ratio = self.schedule.at(state.step - 1) if state.step else 0.0

    def sparsity(self) -> float:
        """Zeros over elements of the weights to prune, as they are now."""
        return sum(count_zeros(self._weights)) / sum(weight.size for weight in self._weights)

    def finalize(self) -> SparsityReport:
        """Zeroes the pruned weights once more and counts what is really there.

        Raises:
            PipelineError: the training diverged.
            RuntimeError: a weight that the masks prune is not zero.
        """
        self.update_params()
        report = measure_sparsity(self.model, self.plan)
        self._require_finite(f"after {self.cur_iteration} steps")
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


def _skipped(optimizer: Any) -> bool:
    """Whether AMP's scaler, which tells the optimizer so, found an overflow in this step."""
    ask = getattr(optimizer, "_get_auxiliary_var", None)
    found = ask("found_inf") if ask else None
    return found is not None and bool(found)
