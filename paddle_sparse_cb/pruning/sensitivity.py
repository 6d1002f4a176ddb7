"""`Sensitivity`: how a metric suffers when single layers are pruned, as `measure_sensitivity` has measured it."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import InputError
from ..utils.files import write_text
from ..utils.json_files import read_json
from ..utils.tables import render_table
from ..utils.validation import check_count, check_fraction
from .masks import check_block

VERSION = 1


@dataclass(frozen=True)
class LayerSensitivity:
    """What was measured of one layer.

    Attributes:
        name: structured name of the weight.
        shape: shape of the weight.
        block: rows and columns that were pruned as one.
        macs: multiply-accumulates for one image; None if unknown.
        values: the metric of the network with this layer pruned, by ratio; None where it was not finite.
    """

    name: str
    shape: tuple[int, ...]
    block: tuple[int, int]
    macs: int | None
    values: Mapping[float, float | None]

    @property
    def numel(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Sensitivity:
    """What was measured of a network; `str(sensitivity)` is a table of the losses by layer and ratio.

    Attributes:
        metric: name of the metric, such as `loss` or `mAP`.
        higher_is_better: whether a larger metric is better.
        baseline: the metric of the unpruned network.
        ratios: the ratios at which each layer is measured.
        layers: the layers, in the network's order.
        macs: multiply-accumulates of the whole network for one image; None if unknown.
        digest: identifies weights, data and versions.
    """

    metric: str
    higher_is_better: bool
    baseline: float
    ratios: tuple[float, ...]
    layers: tuple[LayerSensitivity, ...]
    macs: int | None = None
    digest: str = ""

    def curve(self, layer: LayerSensitivity) -> list[tuple[float, float]]:
        """Returns how much worse the metric gets by pruning a layer.

        Pruning more never counts as better: each value is at least those of lower ratios, and at least 0. The curve
        ends before the first ratio at which the metric was not finite.

        Returns:
            Ratios and losses in ascending order, beginning with (0, 0).
        """
        points, worst = [(0.0, 0.0)], 0.0
        for ratio in sorted(layer.values):
            value = layer.values[ratio]
            if value is None:
                break
            worst = max(worst, self._lost(value))
            points.append((ratio, worst))
        return points

    def _lost(self, value: float) -> float:
        return self.baseline - value if self.higher_is_better else value - self.baseline

    def _cell(self, layer: LayerSensitivity, ratio: float) -> str:
        if ratio not in layer.values:
            return ""
        value = layer.values[ratio]
        return "not finite" if value is None else f"{round(self._lost(value), 4) + 0.0:.4f}"  # no -0.0000

    def missing(self) -> list[tuple[str, float]]:
        """Returns layer and ratio of each result that is still to be measured."""
        return [(layer.name, ratio) for layer in self.layers for ratio in self.ratios if ratio not in layer.values]

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values that can be saved as JSON: the content of the file (docs/sensitivity.md)."""
        return {
            "version": VERSION,
            "metric": self.metric,
            "higher_is_better": self.higher_is_better,
            "baseline": self.baseline,
            "ratios": list(self.ratios),
            "macs": self.macs,
            "digest": self.digest,
            "layers": [
                {
                    "name": layer.name,
                    "shape": list(layer.shape),
                    "block": list(layer.block),
                    "macs": layer.macs,
                    "results": [{"ratio": ratio, "value": layer.values[ratio]} for ratio in sorted(layer.values)],
                }
                for layer in self.layers
            ],
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the file atomically."""
        write_text(path, json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Sensitivity:
        """Reads what `save` wrote.

        Raises:
            InputError: the file is missing or damaged, or was written by another version.
        """
        return read_json(path, cls._read, "a valid sensitivity file", "paddle-sparse sensitivity RECIPE")

    @classmethod
    def _read(cls, content: Any) -> Sensitivity:
        if not isinstance(content, dict) or content.get("version") != VERSION:
            raise InputError(f"its version must be {VERSION}")
        if not isinstance(content["metric"], str) or not isinstance(content["higher_is_better"], bool):
            raise InputError("metric must be a string, and higher_is_better true or false")
        layers = tuple(_read_layer(layer) for layer in content["layers"])
        if len({layer.name for layer in layers}) != len(layers):
            raise InputError("a layer is listed twice")
        return cls(
            content["metric"],
            content["higher_is_better"],
            _finite("baseline", content["baseline"]),
            tuple(check_fraction("ratios", ratio) for ratio in content["ratios"]),
            layers,
            _optional_count("macs", content["macs"]),
            str(content["digest"]),
        )

    def __str__(self) -> str:
        rows = [
            (
                layer.name,
                "x".join(map(str, layer.shape)),
                f"{layer.numel:,}",
                *(self._cell(layer, ratio) for ratio in self.ratios),
            )
            for layer in self.layers
        ]
        headers = ("weight", "shape", "elements", *(f"{ratio:.4g}" for ratio in self.ratios))
        change = "decrease" if self.higher_is_better else "increase"
        table = render_table(headers, rows, f"lrr{'r' * len(self.ratios)}")
        return f"{table}\n{change} of {self.metric}, {self.baseline:.4f} unpruned, with one layer pruned to each ratio"


def _read_layer(content: Mapping[str, Any]) -> LayerSensitivity:
    name, shape = content["name"], tuple(check_count("shape", size, least=1) for size in content["shape"])
    if not isinstance(name, str) or len(shape) < 2:
        raise InputError(f"a layer has a name and a shape of two or more dimensions, got {name!r} {list(shape)}")
    values = {
        check_fraction("ratio", result["ratio"]): None
        if result["value"] is None
        else _finite(f"{name}: value", result["value"])
        for result in content["results"]
    }
    return LayerSensitivity(
        name, shape, check_block(content["block"], "block"), _optional_count("macs", content["macs"]), values
    )


def _finite(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise InputError(f"{name} must be a finite number, got {value!r}")
    return float(value)


def _optional_count(name: str, value: Any) -> int | None:
    return None if value is None else check_count(name, value)
