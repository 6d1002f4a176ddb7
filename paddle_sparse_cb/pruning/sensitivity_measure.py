"""`measure_sensitivity`: prunes each layer alone to several ratios and evaluates the network."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import paddle

from ..errors import InputError
from ..utils.layers import eval_mode, network_digest
from ..utils.validation import check_fraction
from .layer_masks import keep_layer_masks
from .layer_settings import set_default_block
from .plan import PlannedLayer, PrunePlan
from .planned_weights import find_planned_weights
from .sensitivity import LayerSensitivity, Sensitivity
from .zeroing import make_zeroing

RATIOS = (0.6, 0.7, 0.8, 0.9, 0.95)
_SAME = 1e-3  # relative difference of two evaluations of the same network: threads add up in any order


def measure_sensitivity(
    network: paddle.nn.Layer,
    plan: PrunePlan,
    evaluate: Callable[[paddle.nn.Layer], float],
    ratios: Sequence[float] = RATIOS,
    *,
    metric: str = "loss",
    higher_is_better: bool = False,
    path: str | os.PathLike[str] | None = None,
    key: Any = None,
    log: Callable[[str], None] = lambda line: None,
) -> Sensitivity:
    """Measures how a metric suffers when single layers are pruned.

    Each planned layer is pruned alone, by magnitude and in its block, to each ratio. The network is evaluated and the
    layer is restored, bit for bit. Layers with a `ratio` of their own are measured like the others.

    Args:
        network: a trained network. It is in evaluation mode while it is measured.
        plan: which layers are measured (see `make_plan`).
        evaluate: takes the network and returns the metric, always on the same data. A mean loss over some hundred
            samples of the training data is smooth, and leaves the evaluation data for the evaluation.
        ratios: ratios above 0, each measured for each layer. `allocate_ratios` interpolates between them, and gives
            no layer a higher one.
        metric: name of the metric.
        higher_is_better: whether a larger metric is better.
        path: a JSON file to which each result is written at once. Results in an earlier file are kept if they are of
            the same weights, metric, key and baseline; another file is renamed to `<name>.earlier.<number>.json`.
        key: what else the results depend on, such as the number of samples, as JSON-serializable values.
        log: receives a line for each result.

    Raises:
        InputError: a ratio is out of range, the plan belongs to another network or prunes nothing, the file is no
            sensitivity file, or the metric of the unpruned network is not finite.

    Examples:
        >>> from paddle import nn
        >>> from paddle_sparse_cb import make_plan
        >>> network, images = nn.Sequential(nn.Conv2D(1, 8, 3), nn.Conv2D(8, 8, 1)), paddle.rand([2, 1, 8, 8])
        >>> outputs = network(images)
        >>> distance = lambda network: float((network(images) - outputs).square().mean())
        >>> measured = measure_sensitivity(network, make_plan(network), distance, [0.5, 0.9])
        >>> [layer.name for layer in measured.layers], measured.baseline
        (['1.weight'], 0.0)
    """
    wanted = _check_ratios(ratios)
    layers = _without_ratios(set_default_block(plan.require_layers(), (1, 1)))
    weights = find_planned_weights(network, PrunePlan(layers))
    digest = _digest(network, metric, higher_is_better, key)
    earlier = _read_earlier(path, digest, log)
    measured = Sensitivity(
        metric,
        higher_is_better,
        earlier.baseline if earlier else math.nan,
        wanted,
        tuple(_resumed(layer, earlier) for layer in layers),
        sum(layer.macs or 0 for layer in plan.layers) or None,
        digest,
    )
    with paddle.no_grad(), eval_mode(network):
        if earlier is None or measured.missing():
            measured = _with_baseline(measured, float(evaluate(network)), path, log)
        total, done = len(layers) * len(wanted), len(layers) * len(wanted) - len(measured.missing())
        if done:
            log(f"{done} of {total} results are from {path}")
        for index, ratio in [(i, r) for i in range(len(layers)) for r in wanted if r not in measured.layers[i].values]:
            with _pruned(layers[index], weights[index], ratio):
                value = float(evaluate(network))
            measured = _with_result(measured, index, ratio, value if math.isfinite(value) else None)
            if path is not None:
                measured.save(path)
            done += 1
            log(f"{done}/{total} {layers[index].name} at {ratio:g}: {metric} {value:.4f}")
    if path is not None and not measured.missing():
        measured.save(path)  # other ratios than in the file may be asked for, all of them measured
    return measured


def _check_ratios(ratios: Sequence[float]) -> tuple[float, ...]:
    if not isinstance(ratios, (list, tuple)) or not ratios:
        raise InputError(f"ratios must be a list of fractions such as [0.6, 0.8], got {ratios!r}")
    return tuple(sorted({check_fraction("ratios", ratio, least=0.01) for ratio in ratios}))


def _without_ratios(plan: PrunePlan) -> tuple[PlannedLayer, ...]:
    return tuple(replace(layer, ratio=None) for layer in plan.pruned)


def _digest(network: paddle.nn.Layer, metric: str, higher_is_better: bool, key: Any) -> str:
    what = [network_digest(network), metric, higher_is_better, key]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def _read_earlier(path: str | os.PathLike[str] | None, digest: str, log: Callable[[str], None]) -> Sensitivity | None:
    if path is None or not Path(path).exists():
        return None
    earlier = Sensitivity.load(path)
    if earlier.digest == digest:
        return earlier
    _set_aside(path, "other weights, data or versions", log)
    return None


def _set_aside(path: str | os.PathLike[str], difference: str, log: Callable[[str], None]) -> None:
    names = (Path(path).with_suffix(f".earlier.{number}{Path(path).suffix}") for number in itertools.count(1))
    kept = next(name for name in names if not os.path.lexists(name))
    os.replace(path, kept)
    log(f"{path} is of {difference}: it was renamed to {kept}, and all layers are measured")


def _resumed(layer: PlannedLayer, earlier: Sensitivity | None) -> LayerSensitivity:
    assert layer.block is not None
    fresh = LayerSensitivity(layer.name, layer.shape, layer.block, layer.macs, {})
    for found in earlier.layers if earlier else ():
        if (found.name, found.shape, found.block) == (fresh.name, fresh.shape, fresh.block):
            return replace(fresh, values=found.values)
    return fresh


def _with_baseline(
    measured: Sensitivity, baseline: float, path: str | os.PathLike[str] | None, log: Callable[[str], None]
) -> Sensitivity:
    """Sets the baseline; if it is not that of the earlier results, drops these."""
    if not math.isfinite(baseline):
        raise InputError(
            f"the {measured.metric} of the unpruned network is {baseline}: nothing can be measured with it"
        )
    log(f"unpruned: {measured.metric} {baseline:.4f}")
    if math.isnan(measured.baseline):
        return replace(measured, baseline=baseline)
    if math.isclose(baseline, measured.baseline, rel_tol=_SAME, abs_tol=1e-9):
        return measured
    if path is not None:
        _set_aside(path, f"another evaluation ({measured.metric} {measured.baseline:.4f} unpruned)", log)
    layers = tuple(replace(layer, values={}) for layer in measured.layers)
    return replace(measured, baseline=baseline, layers=layers)


@contextmanager
def _pruned(layer: PlannedLayer, weight: paddle.Tensor, ratio: float) -> Iterator[None]:
    """Prunes one weight, and restores it on exit."""
    before = weight.clone()
    try:
        [mask] = keep_layer_masks([layer], [weight], [ratio])
        make_zeroing(weight, mask)()
        yield
    finally:
        weight.set_value(before)


def _with_result(measured: Sensitivity, index: int, ratio: float, value: float | None) -> Sensitivity:
    layers = list(measured.layers)
    layers[index] = replace(layers[index], values={**layers[index].values, ratio: value})
    return replace(measured, layers=tuple(layers))
