"""Gradual magnitude pruning (GMP) as numbers: which ratio holds after which optimizer step.

Source: M. Zhu and S. Gupta, "To prune, or not to prune" (2017), in the stepped form of PaddleSlim's
`GMPUnstructuredPruner` (paddleslim/dygraph/prune/unstructured_pruner.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from ..errors import InputError, did_you_mean
from ..utils.validation import check_count, check_fraction

# From the progress of the pruning phase (0 to 1) to the progress from the initial to the target ratio (0 to 1).
CURVES: dict[str, Callable[[float], float]] = {
    "cubic": lambda progress: (progress - 1.0) ** 3 + 1,  # Zhu and Gupta; in this form it gives PaddleSlim's bits
    "linear": lambda progress: progress,
    "cosine": lambda progress: (1 - math.cos(math.pi * progress)) / 2,  # slow at both ends, as in fastai
    "constant": lambda progress: 1.0,  # one-shot pruning: the target from the first pruning step on
}


@dataclass(frozen=True)
class GMPSchedule:
    """Maps optimizer steps to ratios, in three phases with PaddleSlim's names.

    In the stable phase nothing is pruned. In the pruning phase the ratio rises from `initial_ratio` along a curve, in
    `pruning_steps` equal periods of time, each of which holds one ratio. In the tunning phase, and from then on, the
    ratio is `ratio`.

    If a period is a whole number of optimizer steps, the ratios equal PaddleSlim's bit for bit. If it is not,
    PaddleSlim shortens the phases; here each phase starts at the step it was given.

    Attributes:
        ratio: the target ratio, the share of weights that are zero in the end.
        initial_ratio: the ratio of the first pruning step.
        stable_iterations: optimizer steps without pruning.
        pruning_iterations: optimizer steps in which the ratio rises; 0 prunes to the target at once.
        tunning_iterations: optimizer steps at the target ratio, to recover.
        pruning_steps: number of pruning steps, the periods into which the pruning phase is divided.
        curve: how the ratio rises: `cubic`, `linear`, `cosine`, or `constant`, which is the target at once.

    Raises:
        InputError: a value is out of range; the message names it.

    Examples:
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
        checked: dict[str, float | int] = {
            name: check_fraction(name, getattr(self, name)) for name in ("ratio", "initial_ratio")
        }
        for name in ("stable_iterations", "pruning_iterations", "tunning_iterations"):
            checked[name] = check_count(name, getattr(self, name))
        checked["pruning_steps"] = check_count("pruning_steps", self.pruning_steps, least=1)
        for name, value in checked.items():  # as Python's own numbers: NumPy's cannot be saved as JSON
            object.__setattr__(self, name, value)
        if self.initial_ratio > self.ratio:
            raise InputError(f"initial_ratio must be at most ratio ({self.ratio}), got {self.initial_ratio}")
        if self.curve not in CURVES:
            raise InputError(
                f"curve must be one of {', '.join(CURVES)}, got {self.curve!r}; {did_you_mean(str(self.curve), CURVES)}"
            )

    def with_target(self, ratio: float) -> GMPSchedule:
        """Returns the schedule of a layer that has its own target ratio.

        It has the same steps and the same curve, from `initial_ratio` or, if the target is lower, from the target: such
        a layer has its target from the first pruning step on.

        Examples:
            >>> schedule = GMPSchedule(ratio=0.75, initial_ratio=0.15, pruning_iterations=100, pruning_steps=4)
            >>> [round(schedule.with_target(0.9).at(step), 3) for step in (0, 25, 50, 75, 100)]
            [0.15, 0.584, 0.806, 0.888, 0.9]
            >>> [schedule.with_target(0.1).at(step) for step in (0, 50, 100)]
            [0.1, 0.1, 0.1]
        """
        return replace(self, ratio=ratio, initial_ratio=min(self.initial_ratio, ratio))

    @property
    def target_step(self) -> int:
        """The first optimizer step, counted from 0, at which the ratio is the target."""
        return self.stable_iterations + self.pruning_iterations

    def at(self, step: int) -> float:
        """Returns the ratio that holds after an optimizer step.

        Args:
            step: the optimizer step, counted from 0.
        """
        if step < self.stable_iterations:
            return 0.0
        if step >= self.target_step:
            return self.ratio
        pruning_step = (step - self.stable_iterations) * self.pruning_steps // self.pruning_iterations
        risen = CURVES[self.curve](pruning_step / self.pruning_steps)
        return risen * (self.ratio - self.initial_ratio) + self.initial_ratio
