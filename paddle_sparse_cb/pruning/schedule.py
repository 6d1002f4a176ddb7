"""When a network has to be how sparse: gradual magnitude pruning (GMP) as numbers, without Paddle.

Source: M. Zhu and S. Gupta, "To prune, or not to prune" (2017), in the stepped form of PaddleSlim's
`GMPUnstructuredPruner` (paddleslim/dygraph/prune/unstructured_pruner.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import InputError, did_you_mean
from ..utils.validation import check_count, check_fraction

# Progress of the pruning phase, from 0 to 1, to the share of the way from the initial to the target ratio.
CURVES: dict[str, Callable[[float], float]] = {
    "cubic": lambda progress: (progress - 1.0) ** 3 + 1,  # Zhu and Gupta; written so that PaddleSlim's bits come out
    "linear": lambda progress: progress,
    "cosine": lambda progress: (1 - math.cos(math.pi * progress)) / 2,  # slow at both ends, as fastai anneals
    "constant": lambda progress: 1.0,  # one shot: the target at once
}


@dataclass(frozen=True)
class GMPSchedule:
    """Optimizer step to ratio, in three phases named as PaddleSlim spells them.

    Dense in the stable phase; in the pruning phase the ratio rises from `initial_ratio` in `pruning_steps` stairs
    along a curve, by default a cubic one, fast at first; in the tunning phase, and for ever after, it is `ratio`.
    Where the stairs are whole numbers of steps, the ratios are PaddleSlim's bit for bit. Where they are not, PaddleSlim
    cuts the phases; here each phase starts at the step that was asked for.

    Attributes:
        ratio: the target, the share of weights that ends at zero.
        initial_ratio: the ratio of the first stair.
        stable_iterations: optimizer steps without pruning.
        pruning_iterations: optimizer steps over which the ratio rises; 0 prunes at once.
        tunning_iterations: optimizer steps at the target, to recover.
        pruning_steps: how many stairs there are.
        curve: how the stairs rise: `cubic`, `linear`, `cosine`, or `constant`, which is the target at once.

    Raises:
        InputError: a value is out of its range; the message names it.

    Example:
        >>> schedule = GMPSchedule(ratio=0.75, initial_ratio=0.15, pruning_iterations=100, pruning_steps=4)
        >>> [round(schedule.at(step), 3) for step in (0, 25, 50, 75, 100)]
        [0.15, 0.497, 0.675, 0.741, 0.75]
    """

    ratio: float = 0.75
    initial_ratio: float = 0.15
    stable_iterations: int = 0
    pruning_iterations: int = 0
    tunning_iterations: int = 0
    pruning_steps: int = 300
    curve: str = "cubic"

    def __post_init__(self) -> None:
        check_fraction("ratio", self.ratio)
        check_fraction("initial_ratio", self.initial_ratio)
        if self.initial_ratio > self.ratio:
            raise InputError(f"initial_ratio is at most ratio ({self.ratio}), got {self.initial_ratio}")
        for name in ("stable_iterations", "pruning_iterations", "tunning_iterations"):
            check_count(name, getattr(self, name))
        check_count("pruning_steps", self.pruning_steps, least=1)
        if self.curve not in CURVES:
            raise InputError(f"curve is one of {', '.join(CURVES)}, got {self.curve!r}; "
                             f"{did_you_mean(str(self.curve), CURVES)}")

    @property
    def target_step(self) -> int:
        """The first optimizer step (from 0) whose ratio is the target."""
        return self.stable_iterations + self.pruning_iterations

    def at(self, step: int) -> float:
        """The ratio to hold after an optimizer step.

        Args:
            step: the optimizer step, from 0.
        """
        if step < self.stable_iterations:
            return 0.0
        if step >= self.target_step:
            return self.ratio
        stair = (step - self.stable_iterations) * self.pruning_steps // self.pruning_iterations
        risen = CURVES[self.curve](stair / self.pruning_steps)
        return risen * (self.ratio - self.initial_ratio) + self.initial_ratio
