"""The multiple-choice knapsack problem: one option of each group, the least loss within a budget."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# Steps into which the budget is divided. A network of 100 layers with 40 options each takes half a second.
BINS = 20_000


def choose_options(
    losses: Sequence[Sequence[float]], costs: Sequence[Sequence[int]], budget: int, bins: int = BINS
) -> list[int] | None:
    """Chooses one option of each group so that their losses sum up to the least within a budget.

    Dynamic programming over the groups and over what they cost beyond their cheapest options. If that is at most `bins`
    altogether, the result is optimal. Otherwise it is counted in steps of `width = ceil(slack / bins)`, rounded up, so
    that the budget is never exceeded: the result is at least as good as any choice within a budget that is smaller by
    `(groups + 1) * (width - 1)`, see `budget_loss`. The method is that of SPDY (E. Frantar and D. Alistarh, 2022).

    Args:
        losses: finite losses of the options of each group. Of options with equal losses, the first one is preferred.
        costs: their costs, whole numbers.
        budget: what the chosen options may cost together.
        bins: the most steps.

    Returns:
        The index of an option for each group; None if even the cheapest options exceed the budget.

    Examples:
        >>> choose_options([[0.0, 1.0], [0.0, 0.1]], [[6, 2], [6, 2]], budget=8)
        [0, 1]
    """
    least = [min(group) for group in costs]
    slack = budget - sum(least)
    if slack < 0:
        return None
    width = _width(slack, bins)
    capacity = slack // width
    best = np.zeros(capacity + 1)  # the least loss of the groups so far, by what they may cost
    chosen = []
    for group_losses, group_costs, base in zip(losses, costs, least):
        total, option = np.full(capacity + 1, np.inf), np.zeros(capacity + 1, np.int32)
        for index, (loss, cost) in enumerate(zip(group_losses, group_costs)):
            steps = -((base - cost) // width)  # rounded up
            if steps > capacity:
                continue
            candidate, target = best[: capacity + 1 - steps] + loss, total[steps:]
            better = candidate < target
            target[better] = candidate[better]
            option[steps:][better] = index
        best = total
        chosen.append(option)
    left, picked = capacity, []
    for option, group_costs, base in zip(reversed(chosen), reversed(costs), reversed(least)):
        index = int(option[left])
        picked.append(index)
        left += (base - group_costs[index]) // width
    return picked[::-1]


def budget_loss(costs: Sequence[Sequence[int]], budget: int, bins: int = BINS) -> int:
    """Returns by how much the budget may be smaller of which `choose_options` reaches the optimum; 0 if it is exact."""
    slack = budget - sum(min(group) for group in costs)
    return (len(costs) + 1) * (_width(slack, bins) - 1)


def _width(slack: int, bins: int) -> int:
    return max(1, -(-slack // bins))
