from xml.etree import ElementTree

import pytest

from paddle_sparse_cb.report.charts import Series, line_chart, ticks


@pytest.mark.parametrize(
    ("least", "most", "expected"),
    [
        (0, 0.118, [0, 0.05, 0.1, 0.15]),
        (0, 1, [0, 0.5, 1]),
        (0, 150, [0, 50, 100, 150]),
        (3, 3, [3, 3.5]),
        (-1.5, 0.2, [-1.5, -1, -0.5, 0, 0.5]),
        (0, 0, [0, 0.5]),
        (0, 1e9, [0, 5e8, 1e9]),
    ],
)
def test_ticks_are_round_numbers_that_enclose_the_range(least, most, expected):
    assert ticks(least, most, 4) == pytest.approx(expected)


def points(svg):
    root = ElementTree.fromstring(svg)
    return [
        [tuple(map(float, pair.split(","))) for pair in line.get("points").split()] for line in root.iter("polyline")
    ]


def test_a_chart_shows_the_values_at_their_places():
    svg = line_chart("loss", [Series("loss", [(0, 0.0), (50, 1.0), (100, 2.0)], "sparse")], "optimizer step")
    [line] = points(svg)
    (x1, y1), (x2, y2), (x3, y3) = line
    assert x2 - x1 == pytest.approx(x3 - x2)
    assert y1 - y2 == pytest.approx(y2 - y3)
    assert y1 > y2 > y3  # up is less
    texts = [text.text for text in ElementTree.fromstring(svg).iter("text")]
    assert texts == ["0", "0.5", "1", "1.5", "2", "0", "50", "100", "optimizer step"]
    titles = [title.text for title in ElementTree.fromstring(svg).iter("title")]
    assert titles[1] == "loss: 1 at optimizer step 50"


def test_shares_are_shown_in_percent_with_a_level_to_compare_with():
    svg = line_chart("mAP", [Series("mAP", [(0.1, 0.3), (0.75, 0.287)], "sparse")], "sparsity", True, ("dense", 0.309))
    assert "dense 30.9%" in svg
    assert "mAP: 28.70% at sparsity 75.00%" in svg


@pytest.mark.parametrize("one", [[(5, 0.0)], [(5, 3.0)], [(0, 0.5), (0, 0.7)]])
def test_a_chart_of_a_single_step_can_be_drawn(one):
    assert "circle" in line_chart("x", [Series("x", one, "sparse")], "step")


def test_a_long_curve_has_no_dots():
    svg = line_chart("x", [Series("x", [(step, 1.0) for step in range(200)], "sparse")], "step")
    assert "circle" not in svg
    assert len(points(svg)[0]) == 200


def test_names_cannot_become_markup():
    evil = '"><script>alert(1)</script>'
    svg = line_chart(evil, [Series(evil, [(1, 1.0)], "sparse")], evil)
    assert "<script" not in svg
    assert [element.tag for element in ElementTree.fromstring(svg).iter()].count("script") == 0
