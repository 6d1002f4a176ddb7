"""The chart of a sensitivity: a heat map of layers and ratios, as an SVG file of its own."""

from __future__ import annotations

import math
from typing import Any
from xml.etree import ElementTree

_ROW, _CELL, _TOP, _CHARACTER = 20, 76, 46, 6.6  # pixels


def sensitivity_chart(sensitivity: dict[str, Any]) -> str:
    """Draws how much worse the metric gets, for each layer and ratio.

    The colors follow the logarithm of the loss, from the least to the most of the chart.

    Args:
        sensitivity: the content of a `sensitivity.json`.

    Returns:
        An SVG document.
    """
    baseline, sign = sensitivity["baseline"], -1 if sensitivity["higher_is_better"] else 1
    layers, ratios = sensitivity["layers"], sensitivity["ratios"]
    losses = {
        (layer["name"], result["ratio"]): None if result["value"] is None else sign * (result["value"] - baseline)
        for layer in layers
        for result in layer["results"]
    }
    left = 12 + _CHARACTER * max((len(layer["name"]) for layer in layers), default=0)
    width, height = left + _CELL * len(ratios) + 12, _TOP + _ROW * len(layers) + 12
    svg = ElementTree.Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "viewBox": f"0 0 {width:.0f} {height}",
            "width": f"{width:.0f}",
            "font-family": "sans-serif",
            "font-size": "12",
        },
    )
    ElementTree.SubElement(svg, "rect", {"width": "100%", "height": "100%", "fill": "#ffffff"})
    change = "decrease" if sensitivity["higher_is_better"] else "increase"
    _text(svg, 8, 18, f"{change} of {sensitivity['metric']} ({baseline:.4f} unpruned) with one layer pruned", "start")
    colors = _Colors([loss for loss in losses.values() if loss is not None])
    for column, ratio in enumerate(ratios):
        _text(svg, left + _CELL * (column + 0.5), 38, f"{ratio:.4g}", "middle")
    for row, layer in enumerate(layers):
        y = _TOP + _ROW * row
        _text(svg, left - 6, y + 14, layer["name"], "end")
        for column, ratio in enumerate(ratios):
            if (layer["name"], ratio) in losses:
                _cell(svg, left + _CELL * column, y, losses[layer["name"], ratio], colors)
    return ElementTree.tostring(svg, encoding="unicode") + "\n"


class _Colors:
    """Colors of losses, from white to red."""

    def __init__(self, losses: list[float]) -> None:
        positive = sorted(loss for loss in losses if loss > 0)
        most = positive[-1] if positive else 1.0
        # Noise is not stretched over all colors: at most three decades.
        self._least, self._most = math.log(max(positive[0] if positive else most, most / 1000)), math.log(most)

    def share(self, loss: float | None) -> float:
        if loss is None:
            return 1.0
        if loss <= 0 or math.log(loss) <= self._least:
            return 0.0
        return (math.log(loss) - self._least) / (self._most - self._least)


def _cell(svg: ElementTree.Element, x: float, y: float, loss: float | None, colors: _Colors) -> None:
    share = colors.share(loss)
    green, blue = round(255 - 175 * share), round(255 - 195 * share)
    ElementTree.SubElement(
        svg,
        "rect",
        {
            "x": f"{x + 1:.1f}",
            "y": f"{y + 1}",
            "width": f"{_CELL - 2}",
            "height": f"{_ROW - 2}",
            "fill": f"#ff{green:02x}{blue:02x}",
        },
    )
    _text(svg, x + _CELL / 2, y + 14, "not finite" if loss is None else f"{round(loss, 4) + 0.0:.4f}", "middle")


def _text(svg: ElementTree.Element, x: float, y: float, text: str, anchor: str) -> None:
    ElementTree.SubElement(svg, "text", {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor}).text = text
