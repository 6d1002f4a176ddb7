"""`PruningConfig`: all settings of the pruner, validated once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import paddle

from ..errors import InputError
from ..utils.validation import check_count, check_fraction, check_keys
from .distribution import check_scope, overall_ratio
from .layer_rules import PRUNE_SQUEEZE_EXCITE
from .layer_settings import check_blocks, check_ratios, set_default_block, set_layer_values
from .masks import check_block
from .min_sparsity import check_reachable, min_sparsity
from .plan import PrunePlan
from .planner import PRUNE_PARAMS_TYPES, make_plan
from .schedule import GMPSchedule

if TYPE_CHECKING:
    from .pruner import GMPPruner

_PHASES = ("stable", "pruning", "tunning")


@dataclass(frozen=True)
class PruningConfig:
    """What is pruned, when and how much.

    Attributes:
        ratio: the target ratio, the share of weights that ends at zero.
        initial_ratio: the ratio of the first pruning step.
        stable_epochs: epochs before pruning starts.
        pruning_epochs: epochs in which the ratio rises.
        tunning_epochs: epochs at the target ratio, to recover.
        pruning_steps: how many times the ratio rises.
        stable_iterations: optimizer steps before pruning starts, in place of `stable_epochs`.
        pruning_iterations: optimizer steps in which the ratio rises, in place of `pruning_epochs`.
        tunning_iterations: optimizer steps at the target ratio, in place of `tunning_epochs`.
        prune_params_type: `conv1x1_only`, or None for all convolutions and linear layers.
        skip_params_func: PaddleSlim's function, see `make_plan`.
        local_sparsity: every layer is pruned to the ratio; otherwise one ranking over all layers decides.
        scope: `uniform` or `global`, the same as `local_sparsity`, or `erk`: layers with few weights stay denser.
        regrow: a pruned weight may be revived when the masks are updated. Costs accuracy at high ratios.
        curve: how the ratio rises: `cubic`, `linear`, `cosine`, or `constant`, which is the target at once.
        sparse_block: rows (output channels) and columns (input channels) that are pruned as one. Layers that it does
            not divide are pruned as single weights.
        skip: shell patterns over structured names of weights to leave dense, such as `("head.*",)`.
        prune_squeeze_excite: see `make_plan`.
        ratios: target ratios of single layers by pattern, such as `{"head.*": 0.6}`; the last pattern that matches
            decides, and `ratio` holds for all other layers. See `GMPSchedule.with_target` for their schedules.
        blocks: rows and columns of single layers by pattern, such as `{"backbone.*": (4, 1)}`; `sparse_block` holds
            for all other layers.

    Raises:
        InputError: a value is out of range; the message names it.

    Examples:
        >>> config = PruningConfig(ratio=0.75, pruning_epochs=2, tunning_epochs=1, pruning_steps=4)
        >>> config.schedule(steps_per_epoch=10, total_steps=30).target_step
        20
        >>> PruningConfig.from_dict({"tuning_epochs": 1})
        Traceback (most recent call last):
        ...
        paddle_sparse_cb.errors.InputError: Sparsity: unknown argument 'tuning_epochs'; did you mean 'tunning_epochs'?
    """

    ratio: float = 0.75
    initial_ratio: float = 0.15
    stable_epochs: int = 0
    pruning_epochs: int = 150
    tunning_epochs: int = 150
    pruning_steps: int = 300
    stable_iterations: int | None = None
    pruning_iterations: int | None = None
    tunning_iterations: int | None = None
    prune_params_type: str | None = "conv1x1_only"
    skip_params_func: Callable[[paddle.nn.Layer], set[str]] | None = None
    local_sparsity: bool = True
    scope: str | None = None
    regrow: bool = False
    curve: str = "cubic"
    sparse_block: Sequence[int] = (1, 1)
    skip: Sequence[str] = ()
    prune_squeeze_excite: bool = PRUNE_SQUEEZE_EXCITE
    ratios: Mapping[str, float] = field(default_factory=dict)
    blocks: Mapping[str, Sequence[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._set(
            ratio=check_fraction("ratio", self.ratio), initial_ratio=check_fraction("initial_ratio", self.initial_ratio)
        )
        # The schedule checks these; the lengths of the phases follow when the steps of an epoch are known.
        GMPSchedule(
            ratio=self.ratio, initial_ratio=self.initial_ratio, pruning_steps=self.pruning_steps, curve=self.curve
        )
        for phase in _PHASES:
            for name in (f"{phase}_epochs", f"{phase}_iterations"):
                if name.endswith("_epochs") or getattr(self, name) is not None:
                    self._set(**{name: check_count(name, getattr(self, name))})  # NumPy's integers overflow
        if self.prune_params_type not in PRUNE_PARAMS_TYPES:
            raise InputError(f"prune_params_type must be 'conv1x1_only' or None, got {self.prune_params_type!r}")
        if self.skip_params_func is not None and not callable(self.skip_params_func):
            raise InputError(f"skip_params_func must be a function of the network, got {self.skip_params_func!r}")
        if not isinstance(self.skip, (list, tuple)) or not all(isinstance(pattern, str) for pattern in self.skip):
            raise InputError(f"skip must be a list of patterns such as ['head.*'], got {self.skip!r}")
        for name in ("local_sparsity", "regrow", "prune_squeeze_excite"):
            if not isinstance(getattr(self, name), (bool, np.bool_)):
                raise InputError(f"{name} must be True or False, got {getattr(self, name)!r}")
            self._set(**{name: bool(getattr(self, name))})
        scope = check_scope(self.scope) or ("uniform" if self.local_sparsity else "global")
        self._set(scope=scope, sparse_block=check_block(self.sparse_block), skip=tuple(self.skip))
        self._set(ratios=check_ratios(self.ratios), blocks=check_blocks(self.blocks))

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)  # the class is frozen

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any], where: str = "Sparsity") -> PruningConfig:
        """Creates a config from a mapping, such as a block of a YAML file.

        Args:
            settings: values by name.
            where: where they come from, for messages.

        Raises:
            InputError: an unknown name, with the nearest known one, or a value out of range.
        """
        check_keys(settings, [field.name for field in fields(cls)], where)
        return cls(**settings)

    def schedule(self, steps_per_epoch: int | None, total_steps: int | None) -> GMPSchedule:
        """Returns the schedule of a training.

        Args:
            steps_per_epoch: optimizer steps of an epoch; None if unknown.
            total_steps: optimizer steps of the training; None if unknown.

        Raises:
            InputError: the training is too short to reach the target ratio, or phases are given in epochs and the
                steps of an epoch are unknown.
        """
        lengths = {}
        for phase in _PHASES:
            iterations = getattr(self, f"{phase}_iterations")
            if iterations is None and steps_per_epoch is None:
                raise InputError(
                    "the loader has no length, so epochs cannot be converted to steps: give "
                    "stable_iterations, pruning_iterations and tunning_iterations"
                )
            epochs = getattr(self, f"{phase}_epochs")
            lengths[f"{phase}_iterations"] = epochs * (steps_per_epoch or 0) if iterations is None else iterations
        schedule = GMPSchedule(
            ratio=self.ratio,
            initial_ratio=self.initial_ratio,
            pruning_steps=self.pruning_steps,
            curve=self.curve,
            **lengths,
        )
        if total_steps is not None and schedule.target_step >= total_steps:
            raise InputError(
                f"the ratio {self.ratio} would be reached after {schedule.target_step} optimizer steps, but this "
                f"training has {total_steps} ({steps_per_epoch} per epoch): shorten the stable phase "
                f"({schedule.stable_iterations} steps) or the pruning phase ({schedule.pruning_iterations} steps), or "
                "train longer"
            )
        return schedule

    def make_plan(self, network: paddle.nn.Layer, input_spec: Sequence[Any] | None = None) -> PrunePlan:
        """Returns which layers of a network these settings prune, and in which blocks, see `make_plan`."""
        plan = make_plan(
            network,
            input_spec,
            skip=self.skip,
            prune_params_type=self.prune_params_type,
            skip_params_func=self.skip_params_func,
            prune_squeeze_excite=self.prune_squeeze_excite,
        )
        return self.set_layer_values(plan)

    def set_layer_values(self, plan: PrunePlan) -> PrunePlan:
        """Returns a plan whose layers have the ratios and blocks of these settings.

        Raises:
            InputError: see `layer_settings.set_layer_values` and `set_default_block`.
        """
        plan = set_layer_values(plan, self.ratios, self.blocks)
        return set_default_block(plan, self.sparse_block) if plan.pruned else plan

    def target_ratio(self, plan: PrunePlan) -> float:
        """Returns the share of zeros in all planned weights together that the target ratios ask for."""
        return overall_ratio(plan.pruned, self.ratio)

    def min_sparsity(self, plan: PrunePlan) -> dict[str, float]:
        """Returns the least share of zeros of each planned weight at the target ratio, whatever the weights are."""
        rows, columns = self.sparse_block
        return min_sparsity(plan, self.ratio, str(self.scope), (rows, columns))

    def check_reachable(self, plan: PrunePlan) -> None:
        """Raises InputError if the planned layers cannot reach their ratios, see `min_sparsity.check_reachable`."""
        rows, columns = self.sparse_block
        check_reachable(plan, self.ratio, str(self.scope), (rows, columns))

    def make_pruner(self, network: paddle.nn.Layer, schedule: GMPSchedule, plan: PrunePlan) -> GMPPruner:
        """Creates the pruner of a training."""
        from .pruner import GMPPruner  # PaddleSlim takes seconds to import

        configs = asdict(schedule)
        return GMPPruner(
            network,
            ratio=configs.pop("ratio"),
            scope=self.scope,
            regrow=self.regrow,
            sparse_block=self.sparse_block,
            configs=configs,
            plan=plan,
        )
