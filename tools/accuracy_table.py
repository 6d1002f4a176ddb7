"""The table of `make accuracy`."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from accuracy_methods import DENSE_START, PRUNERS, Method

from paddle_sparse_cb.utils.tables import render_table

HEADERS = (
    "method",
    "block",
    "ratio",
    "seeds",
    "mAP 0.5:0.95",
    "lost",
    "to plain GMP",
    "to PaddleSlim",
    "AP50",
    "zeros, least",
    "MACs left",
    "s a run",
)
_Scores = Mapping[int, float]  # mAP in percent, by seed


def table(results: Iterable[Mapping[str, Any]]) -> str:
    """Renders the results that are there.

    `lost` is the share of the mAP of the dense model that was trained on, over the seeds that both have; the
    differences are in points of mAP. Both are means of the differences of each seed, which had the same images in the
    same order, with the standard error of this mean. `s a run` is a median, because a machine may do other work.

    Args:
        results: the JSON files of the runs.
    """
    runs: dict[Method, list[Mapping[str, Any]]] = {}
    for result in results:
        runs.setdefault(Method.parse(result["method"]), []).append(result)
    scores = {method: {one["seed"]: 100 * one["mAP"] for one in found} for method, found in runs.items()}
    rows = [_row(method, runs[method], scores) for method in sorted(runs, key=_order)]
    return render_table(HEADERS, rows, "lrrrlrrrrrrr")


def _order(method: Method) -> tuple[Any, ...]:
    dense = method.ratio == 0
    return not dense, method.block, method.ratio, list(PRUNERS).index(method.pruner), len(method.levers), method.levers


def _row(method: Method, runs: Sequence[Mapping[str, Any]], scores: Mapping[Method, _Scores]) -> tuple[str, ...]:
    own = scores[method]
    pruned = method.ratio > 0
    plain, slim = (replace(method, pruner=pruner, levers=()) for pruner in ("gmp", "paddleslim"))
    mean = statistics.mean(own.values())
    return (
        method.title,
        f"{method.block[0]}x{method.block[1]}" if pruned else "",
        f"{method.ratio:.0%}",
        str(len(own)),
        f"{mean:.2f}" + (f" +- {statistics.stdev(own.values()):.2f}" if len(own) > 1 else ""),
        _lost(own, scores.get(Method("dense"), {})) if method != DENSE_START else "",
        _difference(own, scores.get(plain, {})) if pruned and method != plain else "",
        _difference(own, scores.get(slim, {})) if pruned and method != slim else "",
        f"{100 * statistics.mean(run['AP50'] for run in runs):.1f}",
        f"{min(run['zeros'] for run in runs):.3%}",
        _mean_macs(runs),
        f"{statistics.median(run['seconds'] for run in runs):.0f}",
    )


def _mean_macs(runs: Sequence[Mapping[str, Any]]) -> str:
    """Returns nothing if a result is of a version that did not count multiply-accumulates."""
    return f"{statistics.mean(run['macs'] for run in runs):.1%}" if all("macs" in run for run in runs) else ""


def paired(own: _Scores, other: _Scores) -> tuple[float, float, int]:
    """Returns the mean difference over the seeds that both have, its standard error, and the number of pairs.

    Without pairs the mean is not a number; with one pair the standard error is not.
    """
    differences = [own[seed] - other[seed] for seed in sorted(set(own) & set(other))]
    count = len(differences)
    mean = statistics.mean(differences) if count else math.nan
    return mean, statistics.stdev(differences) / math.sqrt(count) if count > 1 else math.nan, count


def _difference(own: _Scores, other: _Scores) -> str:
    mean, error, count = paired(own, other)
    if not count:
        return ""
    return f"{mean:+.2f}" + (f" +- {error:.2f}" if count > 1 else "") + f" ({count})"


def _lost(own: _Scores, dense: _Scores) -> str:
    mean, error, count = paired(dense, own)
    if not count or own == dense:
        return ""
    whole = statistics.mean(dense[seed] for seed in set(own) & set(dense))
    if not whole:
        return ""
    return f"{mean / whole:.1%}" + (f" +- {error / whole:.1%}" if count > 1 else "")
