"""Measured times of single layers, from the `layers.json` of `paddle-sparse bench --layers`."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import InputError
from ..utils.json_files import read_json
from ..utils.validation import check_fraction
from .layer_settings import divides
from .masks import check_block

_NEAR = 0.005  # the measured share of zeros differs by less from the ratio that was asked for


@dataclass(frozen=True)
class LayerTimes:
    """The time of each layer of one network.

    Attributes:
        path: the file, for messages.
        total: milliseconds of the dense network.
        dense: milliseconds of each layer with dense kernels, by structured name of the weight.
        sparse: the same with sparse kernels: by name and block, ratios and milliseconds in ascending order.
        macs: multiply-accumulates of each layer for one image, where they are known.
    """

    path: str
    total: float
    dense: Mapping[str, float]
    sparse: Mapping[tuple[str, tuple[int, int]], Sequence[tuple[float, float]]]
    macs: Mapping[str, int]

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> LayerTimes:
        """Reads a `layers.json`.

        Raises:
            InputError: the file is missing or damaged.
        """
        parse = functools.partial(cls._read, str(path))
        return read_json(path, parse, "a file of bench --layers", "paddle-sparse bench RECIPE --layers")

    @classmethod
    def _read(cls, path: str, content: Any) -> LayerTimes:
        dense: dict[str, float] = {}
        sparse: dict[tuple[str, tuple[int, int]], dict[float, float]] = {}
        for layer in content["layers"]:
            name = str(layer["name"])
            dense[name] = dense.get(name, 0.0) + _milliseconds(layer["ms_dense"])
            for model in layer["sparse"]:
                if model["ms"] is not None and model["ratio"] is not None:
                    times = sparse.setdefault((name, _block(model["block"], layer["shape"])), {})
                    times[check_fraction("ratio", model["ratio"])] = _milliseconds(model["ms"])
        ordered = {key: sorted(times.items()) for key, times in sparse.items()}
        macs = {str(one["name"]): int(one["macs"]) for one in content["layers"] if one.get("macs") is not None}
        return cls(path, sum(dense.values()), dense, ordered, macs)

    def require(self, name: str, block: tuple[int, int], macs: int | None) -> None:
        """Checks that a layer was measured, dense and sparse in its block, at the input size of the network.

        Args:
            name: structured name of its weight.
            block: rows and columns that are pruned as one.
            macs: its multiply-accumulates; None if they are unknown.

        Raises:
            InputError: it was not.
        """
        if name not in self.dense:
            raise InputError(f"{self.path}: it has no times of {name}: it is of another network")
        if macs is not None and self.macs.get(name, macs) != macs:
            raise InputError(
                f"{self.path}: {name} has {self.macs[name]:,} multiply-accumulates there, and {macs:,} where the "
                "sensitivity was measured: measure both at one input size"
            )
        if (name, block) not in self.sparse:
            shape = "x".join(map(str, block))
            raise InputError(
                f"{self.path}: it has no times of {name} in blocks of {shape}; measure them: paddle-sparse bench "
                f"RECIPE --layers --ratio 0.6,0.75,0.9 --block {shape}"
            )

    def milliseconds(self, name: str, block: tuple[int, int], ratio: float) -> float | None:
        """Returns the time of a layer at a ratio, interpolated between those that were measured.

        Above the highest one, the time of this one holds: more zeros are not slower.

        Returns:
            Milliseconds; with ratio 0 those of the dense kernel; None below the lowest ratio that was measured.
        """
        if ratio == 0:
            return self.dense[name]
        times = self.sparse[name, block]
        if ratio < times[0][0] - _NEAR:
            return None
        return interpolate(times, ratio) if ratio > times[0][0] else times[0][1]


def interpolate(points: Sequence[tuple[float, float]], x: float) -> float:
    """Interpolates linearly between points in ascending order of x; beyond the last one, its y holds.

    Examples:
        >>> interpolate([(0.0, 0.0), (0.5, 2.0)], 0.25), interpolate([(0.0, 0.0), (0.5, 2.0)], 0.9)
        (1.0, 2.0)
    """
    for (x1, y1), (x2, y2) in zip(points, points[1:]):
        if x <= x2:
            return y1 + (y2 - y1) * (x - x1) / (x2 - x1)
    return points[-1][1]


def _block(block: Any, shape: Any) -> tuple[int, int]:
    """Returns the block in which a layer is pruned: single weights where the block of the model does not divide it."""
    rows, columns = check_block(block, "block")
    return (rows, columns) if shape is None or divides((rows, columns), shape) else (1, 1)


def _milliseconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise ValueError(f"a time must be a number of milliseconds, got {value!r}")
    return float(value)
