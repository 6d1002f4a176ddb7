"""What a sparse training is about to do, and what it has done, as short tables."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

from ..utils.tables import render_table
from .distribution import overall_ratio
from .plan import PlannedLayer, PrunePlan
from .schedule import GMPSchedule
from .statistics import LayerSparsity, SparsityReport

_MOST_REASONS = 6


def training_summary(
    plan: PrunePlan, schedule: GMPSchedule, steps_per_epoch: int | None = None, total_steps: int | None = None
) -> str:
    """Describes a training before its first step: what is pruned, what is not and why, and when.

    Args:
        plan: which weights are pruned.
        schedule: when they are pruned.
        steps_per_epoch: optimizer steps of an epoch; None if unknown.
        total_steps: optimizer steps of the training; None if unknown.

    Returns:
        Two tables with a headline.
    """
    target = overall_ratio(plan.pruned, schedule.ratio)
    headline = f"{len(plan.pruned)} of {len(plan.layers)} weights are pruned to {target:.2%}"
    return f"{headline}\n{_plan_table(plan)}\n\n{_schedule_table(plan, schedule, steps_per_epoch, total_steps)}"


def _plan_table(plan: PrunePlan) -> str:
    reasons = Counter(layer.reason for layer in plan.layers if not layer.pruned)
    listed = [reason for reason, _ in reasons.most_common(len(reasons) if len(reasons) <= _MOST_REASONS else 5)]
    groups: list[tuple[str, list[PlannedLayer]]] = [("pruned", list(plan.pruned))]
    groups += [(f"dense: {one}", [layer for layer in plan.layers if layer.reason == one]) for one in listed]
    others = [layer for layer in plan.layers if not layer.pruned and layer.reason not in listed]
    if others:
        groups.append((f"dense: {len(reasons) - len(listed)} other reasons", others))
    groups.append(("all", list(plan.layers)))
    macs = sum(layer.macs or 0 for layer in plan.layers)
    rows = [(name, len(layers), f"{_numel(layers):,}", *_mac_cells(layers, macs)) for name, layers in groups]
    mac_headers = ("M MACs", "share") if macs else ()
    return render_table(("weights", "layers", "elements", *mac_headers), rows, f"lrr{'r' * len(mac_headers)}")


def _numel(layers: Iterable[PlannedLayer]) -> int:
    return sum(math.prod(layer.shape) for layer in layers)


def _mac_cells(layers: Iterable[PlannedLayer], total: int) -> tuple[str, ...]:
    macs = sum(layer.macs or 0 for layer in layers)
    return (f"{macs / 1e6:.2f}", f"{macs / total:.1%}") if total else ()


def _schedule_table(
    plan: PrunePlan, schedule: GMPSchedule, steps_per_epoch: int | None, total_steps: int | None
) -> str:
    schedules = {layer.ratio: schedule.with_target(layer.ratio) for layer in plan.pruned if layer.ratio is not None}

    def at(step: int) -> float:
        """The share of zeros in all planned weights together."""
        return overall_ratio(plan.pruned, schedule.at(step), {own: each.at(step) for own, each in schedules.items()})

    begin, target = schedule.stable_iterations, schedule.target_step
    end = total_steps or target + schedule.tunning_iterations
    # A pruning phase without steps is a single update, made in the first step after the stable phase.
    rise = f"{at(begin):.2%}"
    if schedule.pruning_iterations:
        last = at(target - 1)
        rise = f"{rise} to {last:.2%}, {schedule.curve}, {min(schedule.pruning_steps, target - begin)} pruning steps"
    phases = (
        ("stable", 0, begin, "as it is"),
        ("pruning", begin, target, rise),
        ("tunning", target, end, f"{at(target):.2%}"),
    )
    rows = [
        (name, _epochs(last - first, steps_per_epoch), f"{first:,} to {last:,}", sparsity)
        for name, first, last, sparsity in phases
        if last > first
    ]
    return render_table(("phase", "epochs", "optimizer steps", "sparsity"), rows, "lrrl")


def _epochs(steps: int, steps_per_epoch: int | None) -> str:
    return f"{steps / steps_per_epoch:.4g}" if steps_per_epoch else "-"


def result_summary(report: SparsityReport, target: float) -> str:
    """Describes what a training has pruned: zeros of the pruned and of all weights, and the extreme layers.

    Args:
        report: the zeros after the training.
        target: the ratio that was asked for.

    Returns:
        A table with a headline.
    """
    pruned = [layer for layer in report.layers if layer.pruned]
    groups: list[tuple[str, list[LayerSparsity]]] = [("pruned", pruned), ("all", list(report.layers))]
    rows = []
    for name, layers in groups:
        zeros, numel = sum(layer.zeros for layer in layers), sum(layer.numel for layer in layers)
        rows.append((name, len(layers), f"{numel:,}", f"{zeros:,}", f"{zeros / numel if numel else 0:.2%}"))
    least, most = (function(pruned, key=lambda layer: layer.ratio) for function in (min, max))
    table = render_table(("weights", "layers", "elements", "zeros", "sparsity"), rows, "lrrrr")
    headline = f"sparsity {report.ratio:.2%} of the pruned weights, target {target:.2%}"
    if most.ratio > least.ratio:
        headline += f"\nlayers from {least.ratio:.2%} ({least.name}) to {most.ratio:.2%} ({most.name})"
    return f"{headline}\n{table}"
