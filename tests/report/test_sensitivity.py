import re
from xml.etree import ElementTree

import pytest

from paddle_sparse_cb.report.sensitivity import sensitivity_chart

SVG = "{http://www.w3.org/2000/svg}"


def content(*values, baseline=1.0, higher_is_better=False, name="layer"):
    """A sensitivity of one row of values for each layer."""
    ratios = [0.6, 0.8, 0.9]
    return {
        "metric": "loss",
        "higher_is_better": higher_is_better,
        "baseline": baseline,
        "ratios": ratios,
        "layers": [
            {"name": f"{name}{row}", "results": [{"ratio": r, "value": v} for r, v in zip(ratios, found)]}
            for row, found in enumerate(values)
        ],
    }


def read(svg):
    root = ElementTree.fromstring(svg)
    return [text.text for text in root.iter(f"{SVG}text")], [rect.get("fill") for rect in root.iter(f"{SVG}rect")][1:]


def test_each_layer_and_ratio_has_a_cell_that_is_darker_the_more_is_lost():
    texts, colors = read(sensitivity_chart(content([1.001, 1.01, 2.0], [1.0, 1.1, None])))
    assert texts[:4] == ["increase of loss (1.0000 unpruned) with one layer pruned", "0.6", "0.8", "0.9"]
    assert texts[4:] == ["layer0", "0.0010", "0.0100", "1.0000", "layer1", "0.0000", "0.1000", "not finite"]
    greens = [int(color[3:5], 16) for color in colors]
    assert greens[0] == greens[3] == 255
    assert greens[0] > greens[1] > greens[4] > greens[2] == greens[5]


def test_a_metric_of_which_more_is_better_is_shown_as_what_is_lost():
    texts, _ = read(sensitivity_chart(content([0.6, 0.5, 0.4], baseline=0.7, higher_is_better=True)))
    assert texts[0].startswith("decrease of loss")
    assert texts[-3:] == ["0.1000", "0.2000", "0.3000"]


@pytest.mark.parametrize("values", [[], [[]], [[1.0, 1.0, 1.0]], [[None]], [[0.5, 0.9]], [[1.5], [1.5]], [[1e9, 1.0]]])
def test_a_chart_can_be_drawn_of_any_values(values):
    texts, colors = read(sensitivity_chart(content(*values)))
    assert len(texts) == 4 + sum(1 + len(row) for row in values)
    assert all(re.fullmatch("#ff[0-9a-f]{4}", color) for color in colors)


def test_names_of_strangers_cannot_become_markup():
    svg = sensitivity_chart(content([1.0], name='<script>"&'))
    assert "<script>" not in svg
    assert '<script>"&0' in read(svg)[0]
