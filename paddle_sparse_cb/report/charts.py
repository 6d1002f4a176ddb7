"""Line charts as SVG, drawn for a width of 360 pixels, which fits a phone.

They are built as XML trees, so that text of strangers cannot become markup. Colors are classes of `report.css`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

_WIDTH, _HEIGHT = 360, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 352, 12, 186  # of the plot
_MOST_DOTS = 60


@dataclass(frozen=True)
class Series:
    """One line of a chart.

    Attributes:
        name: shown when a point is pointed at.
        points: x and y, in the order of x.
        style: class in `report.css`.
        line: connect the points.
    """

    name: str
    points: Sequence[tuple[float, float]]
    style: str
    line: bool = True


def line_chart(
    title: str, series: Sequence[Series], x_label: str, percent: bool = False, level: tuple[str, float] | None = None
) -> str:
    """Draws lines over a common axis.

    Args:
        title: description for screen readers.
        series: the lines; at least one has a point.
        x_label: what the x axis shows.
        percent: the values are fractions, shown in percent.
        level: name and value of a horizontal line to compare with.

    Returns:
        An `<svg>` element.
    """
    xs = [x for one in series for x, _ in one.points]
    ys = [y for one in series for _, y in one.points] + ([level[1]] if level else [])
    x_ticks, y_ticks = ticks(min(xs), max(xs), 4), ticks(min(0.0, *ys), max(ys), 4)
    x_range = (min(xs), max(xs)) if max(xs) > min(xs) else (min(xs) - 1, max(xs) + 1)
    y_range = (y_ticks[0], y_ticks[-1])
    svg = ElementTree.Element("svg", {"viewBox": f"0 0 {_WIDTH} {_HEIGHT}", "role": "img", "aria-label": title})
    for tick in y_ticks:
        y = _place(tick, y_range, _BOTTOM, _TOP)
        ElementTree.SubElement(svg, "line", _line(_LEFT, y, _RIGHT, y, "grid"))
        _text(svg, _LEFT - 6, y + 4, _number(tick, percent), "end")
    for tick in x_ticks:
        if x_range[0] <= tick <= x_range[1]:
            _text(
                svg, _place(tick, x_range, _LEFT, _RIGHT), _BOTTOM + 15, _number(tick, x_label == "sparsity"), "middle"
            )
    _text(svg, (_LEFT + _RIGHT) / 2, _HEIGHT - 4, x_label, "middle")
    if level:
        y = _place(level[1], y_range, _BOTTOM, _TOP)
        ElementTree.SubElement(svg, "line", _line(_LEFT, y, _RIGHT, y, "level"))
        _text(svg, _RIGHT, y - 4, f"{level[0]} {_number(level[1], percent, 2)}", "end")
    for one in series:
        _draw_series(svg, one, x_range, y_range, x_label, percent)
    return ElementTree.tostring(svg, encoding="unicode")


def _draw_series(
    svg: ElementTree.Element,
    series: Series,
    x_range: tuple[float, float],
    y_range: tuple[float, float],
    x_label: str,
    percent: bool,
) -> None:
    points = [(_place(x, x_range, _LEFT, _RIGHT), _place(y, y_range, _BOTTOM, _TOP)) for x, y in series.points]
    if series.line and len(points) > 1:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        ElementTree.SubElement(svg, "polyline", {"points": path, "class": f"curve {series.style}"})
    dots = zip(points, series.points) if len(points) <= _MOST_DOTS or not series.line else ()
    for (x, y), (x_value, y_value) in dots:
        dot = ElementTree.SubElement(
            svg, "circle", {"cx": f"{x:.1f}", "cy": f"{y:.1f}", "r": "3", "class": f"dot {series.style}"}
        )
        where = f"{x_label} {_number(x_value, x_label == 'sparsity', 3)}"
        ElementTree.SubElement(dot, "title").text = f"{series.name}: {_number(y_value, percent, 3)} at {where}"


def ticks(least: float, most: float, count: int) -> list[float]:
    """Returns about `count` round numbers that enclose a range.

    Examples:
        >>> ticks(0, 0.118, 4)
        [0.0, 0.05, 0.1, 0.15]
    """
    span = (most - least) or 1.0
    power = 10.0 ** math.floor(math.log10(span / count))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor * count >= span * 0.999)
    first, last = math.floor(least / step + 1e-9), math.ceil(most / step - 1e-9)
    return [round(number * step, 12) for number in range(first, max(last, first + 1) + 1)]


def _place(value: float, domain: tuple[float, float], low: float, high: float) -> float:
    return low + (value - domain[0]) / (domain[1] - domain[0]) * (high - low)


def _number(value: float, percent: bool, digits: int = 0) -> str:
    if percent:
        return f"{100 * value:.{max(1, digits - 1)}f}%" if digits else f"{100 * value:g}%"
    return f"{value:,.0f}" if value == round(value) else f"{value:.4g}"


def _line(x1: float, y1: float, x2: float, y2: float, style: str) -> dict[str, str]:
    return {"x1": f"{x1:.1f}", "y1": f"{y1:.1f}", "x2": f"{x2:.1f}", "y2": f"{y2:.1f}", "class": style}


def _text(svg: ElementTree.Element, x: float, y: float, text: str, anchor: str) -> None:
    ElementTree.SubElement(svg, "text", {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor}).text = text
