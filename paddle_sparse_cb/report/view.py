"""What `report.html` shows, as plain text and numbers: the template adds nothing but markup."""

from __future__ import annotations

from collections import Counter
from typing import Any

from .bench import bench_captions, bench_headers, bench_rows, percent
from .charts import Series, line_chart
from .checks import checks_in_words
from .table import captions, table_headers, table_rows

_MOST_CLASSES = 20


def make_view(report: dict[str, Any]) -> dict[str, Any]:
    """Returns the variables of the template, without the pictures.

    Args:
        report: the content of `report.json`. Its optional fields may be missing.
    """
    rows = {row["name"]: row for row in report["rows"]}
    main = rows.get("sparse") or rows["dense"]
    checks = checks_in_words(report.get("checks") or {})
    return {
        "title": report.get("recipe", "report"),
        "lead": f"{main['model']}, input of {' x '.join(map(str, main['input_size']))} pixels (height x width)",
        "cards": [*_cards(rows.get("dense"), rows.get("sparse")), *_check_card(checks)],
        "headers": table_headers(report)[0],
        "rows": table_rows(report),
        "captions": [*captions(report), "mAP and AP50 in percent, by COCO's rules."],
        "charts": _charts(report, rows),
        **_class_view(report.get("classes") or []),
        **_layer_view(report.get("layers") or []),
        **_bench_view(report.get("bench") or {}),
        "sizes": [(one["file"], f"{one['bytes']:,}", f"{one['bytes'] / 1e6:.2f}") for one in report.get("sizes") or []],
        **_data_view(report.get("data") or {}, report.get("classes") or []),
        "checks": checks,
        "commands": report.get("commands") or [],
        "origin": _origin(report),
    }


def _card(name: str, value: str, note: str, style: str = "") -> dict[str, str]:
    return {"name": name, "value": value, "note": note, "style": style}


def _cards(dense: dict[str, Any] | None, sparse: dict[str, Any] | None) -> list[dict[str, str]]:
    if sparse is None:
        return [_card("mAP", percent((dense or {}).get("map")), "of the dense network")]
    cards = [
        _card(
            "Zeros", f"{sparse['sparsity']:.1%}", f"of the weights to prune; asked for {sparse['target_sparsity']:.1%}"
        )
    ]
    note = "no dense baseline was measured"
    if dense and None not in (dense["map"], sparse["map"]):
        change = 100 * (sparse["map"] - dense["map"])
        note = f"{abs(change):.1f} points {'less' if change < 0 else 'more'} than dense ({percent(dense['map'])})"
    cards.append(_card("mAP", percent(sparse["map"]), note))
    if sparse["nb_bytes"] is not None and dense and dense["nb_bytes"]:
        saved = 1 - sparse["nb_bytes"] / dense["nb_bytes"]
        note = f"{abs(saved):.0%} {'smaller' if saved >= 0 else 'larger'} than dense ({dense['nb_bytes'] / 1e6:.2f} MB)"
        cards.append(_card("File for the phone", f"{sparse['nb_bytes'] / 1e6:.2f} MB", note))
    return cards


def _check_card(checks: list[Any]) -> list[dict[str, str]]:
    if not checks:
        return []
    failed = sum(not check.ok for check in checks)
    if failed:
        return [_card("Verification", "failed", f"{failed} of {len(checks)} checks failed, see below", "bad")]
    return [_card("Verification", "passed", f"all {len(checks)} checks of the files", "good")]


def _charts(report: dict[str, Any], rows: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    curves, kind = report.get("curves") or {}, "sparse" if "sparse" in rows else "dense"
    dense_map = rows["dense"]["map"] if "sparse" in rows and "dense" in rows else None
    level = ("dense", dense_map) if dense_map is not None else None
    charts = []
    actual, target = curves.get("sparsity/actual"), curves.get("sparsity/target")
    if actual and target:
        series = [Series("zeros", actual, "sparse"), Series("target", target, "target")]
        svg = line_chart("Sparsity during the training", series, "optimizer step", percent=True)
        charts.append({"title": "Sparsity", "legend": [("sparse", "zeros"), ("target", "target")], "svg": svg})
    if curves.get("train/loss"):
        svg = line_chart("Loss during the training", [Series("loss", curves["train/loss"], kind)], "optimizer step")
        charts.append({"title": "Loss", "legend": [], "svg": svg})
    if curves.get("eval/mAP"):
        series = [Series("mAP", curves["eval/mAP"], kind)]
        svg = line_chart("mAP during the training", series, "optimizer step", percent=True, level=level)
        charts.append({"title": "mAP", "legend": [], "svg": svg})
    best = [(row["sparsity"], row["mAP"]) for row in report.get("evaluations") or [] if row.get("mAP") is not None]
    if best and kind == "sparse":
        series = [Series("best mAP", best, "sparse")]
        if level:
            series.append(Series("dense mAP", [(rows["dense"]["sparsity"], level[1])], "dense", line=False))
        svg = line_chart("Best mAP at each sparsity", series, "sparsity", percent=True)
        keys = [("sparse", "best evaluation"), *([("dense", "before pruning")] if level else [])]
        charts.append({"title": "mAP against sparsity", "legend": keys, "svg": svg})
    return charts


def _class_view(classes: list[dict[str, Any]]) -> dict[str, Any]:
    measured = [one for one in classes if one["dense_ap"] is not None or one["sparse_ap"] is not None]
    note = "AP in percent over IoU 0.5 to 0.95, on the validation images."
    if len(measured) > _MOST_CLASSES:
        measured.sort(key=lambda one: abs((one["dense_ap"] or 0) - (one["sparse_ap"] or 0)), reverse=True)
        note += f" First the {_MOST_CLASSES} classes that changed most."
    has_sparse = any(one["sparse_ap"] is not None for one in measured)
    rows = []
    for one in measured:
        bars = [(kind, one[f"{kind}_ap"]) for kind in ("dense", "sparse") if one[f"{kind}_ap"] is not None]
        values = " → ".join(percent(value) for _, value in bars)
        rows.append({"name": one["name"], "bars": [(kind, f"{100 * ap:.1f}") for kind, ap in bars], "label": values})
    return {
        "class_rows": rows[:_MOST_CLASSES],
        "more_class_rows": rows[_MOST_CLASSES:],
        "class_note": note,
        "has_sparse_ap": has_sparse,
    }


def _layer_view(layers: list[dict[str, Any]]) -> dict[str, Any]:
    largest = max((layer["numel"] for layer in layers), default=1)
    bars, rows = [], []
    for layer in layers:
        ratio, shape = layer["zeros"] / layer["numel"], "x".join(map(str, layer["shape"]))
        status = "pruned" if layer["pruned"] else layer["reason"]
        detail = f"{ratio:.2%} zeros" if layer["pruned"] else f"left dense: {layer['reason']}"
        bars.append(
            {
                "pruned": layer["pruned"],
                "height": f"{100 * ratio:.2f}",
                # The square root of its share, so that small weights can still be seen.
                "width": f"{max(0.15, (layer['numel'] / largest) ** 0.5):.3f}",
                "title": f"{layer['name']}, {shape}: {detail}",
            }
        )
        rows.append((layer["name"], shape, f"{layer['zeros']:,}", f"{ratio:.2%}", status))
    pruned = [layer for layer in layers if layer["pruned"]]
    share = sum(layer["numel"] for layer in pruned) / (sum(layer["numel"] for layer in layers) or 1)
    note = (
        f"{len(pruned)} of {len(layers)} weights are pruned; they hold {share:.0%} of all values. One bar for each "
        "weight, from the input of the network to its output: its height is the share of zeros, from 0 to 100%, and "
        "wide bars are large weights. Point at a bar for its name."
    )
    reasons = Counter(layer["reason"] for layer in layers if not layer["pruned"]).most_common()
    return {"layers": bars if pruned else [], "layer_rows": rows, "layers_note": note, "reasons": reasons}


def _bench_view(bench: dict[str, Any]) -> dict[str, Any]:
    rows = bench.get("rows") or []
    return {
        "bench_headers": bench_headers(rows)[0] if rows else (),
        "bench": bench_rows(rows),
        "bench_captions": bench_captions(bench) if rows else [],
    }


def _data_view(data: dict[str, Any], classes: list[dict[str, Any]]) -> dict[str, Any]:
    names = {"train": "training", "eval": "validation"}
    rows = [
        (
            names[split],
            f"{one['images']:,}",
            f"{one['objects']:,}",
            " x ".join(map(str, one["median_size"])) if one["median_size"] else "-",
            one["folder"],
        )
        for split, one in data.items()
        if split in names
    ]
    counts = [(one["name"], f"{one['train_objects']:,}", f"{one['eval_objects']:,}") for one in classes]
    return {"data": rows, "class_counts": counts}


def _origin(report: dict[str, Any]) -> list[tuple[str, str]]:
    versions = report.get("versions") or {"Paddle": report.get("paddle", "-")}
    return [
        ("recipe", str(report.get("recipe", "-"))),
        ("digest of the recipe", str(report.get("digest", "-"))[:16]),
        ("seed", str(report.get("seed", "-"))),
        *((name, str(version)) for name, version in versions.items()),
    ]
