from dataclasses import replace

import published_table
import pytest

SPARSE75 = published_table.Row("m", 0.75, "none", 5_410_000, 0.596, 101, 106)
SPARSE85 = published_table.Row("m", 0.85, "none", 3_840_000, 0.423, 101, 106)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([SPARSE75, SPARSE85], []),
        ([replace(SPARSE75, of_dense=0.611), SPARSE85], ["75%: 0.611 of the dense size, at most 0.61 is asked"]),
        (
            [SPARSE75, replace(SPARSE85, of_dense=0.45, sparse=99)],
            [
                "85%: 0.450 of the dense size, at most 0.44 is asked",
                "85%: 99 sparse convolutions, at least 100 are asked",
            ],
        ),
        ([SPARSE85], ["75%: not measured"]),
        ([replace(SPARSE75, squeeze="all", sparse=75), SPARSE75, SPARSE85], []),
    ],
)
def test_what_falls_short_is_said(rows, said):
    assert published_table.shortfalls(rows) == said


def latency(kind, ratio, block, ms, speedup):
    row = {"runtime": "MNN", "version": "3", "kind": kind, "ratio": ratio, "block": block, "mb": 5.4, "ms": ms}
    return {**row, "speedup": speedup, "disturbed": False}


LATENCY = {
    "machine": {"cpu": "a CPU", "cores": 2, "features": ["avx2"], "os": "Linux x86_64", "governor": None},
    "rows": [latency("dense", 0.0, [1, 1], 20.0, None), latency("sparse", 0.75, [4, 1], 12.5, 0.6)],
}


def test_the_published_speed_ups_are_those_of_the_published_times():
    """Computed from the published milliseconds, which are whole numbers."""
    rows = [" ".join(line.split()) for line in published_table.published_table().splitlines()]
    assert rows[2:] == [
        "m (ESNet) 0% 30.9 8.9 1.00 127 - 43 -",
        "m (ESNet) 75% 29.4 5.6 0.63 80 +59% 32 +34%",
        "m (ESNet) 85% 27.6 4.1 0.46 65 +95% 27 +59%",
        "s (ESNet) 0% 27.1 4.6 1.00 68 - 26 -",
    ]


def test_our_latency_has_the_block_of_zeros():
    rows = [" ".join(line.split()) for line in published_table.latency_table({"m": LATENCY}).splitlines()]
    assert rows[2:] == ["m (ESNet) 0% - 5.40 20.00 -", "m (ESNet) 75% 4x1 5.40 12.50 +60%"]


def test_the_command_fails_where_something_falls_short(monkeypatch, tmp_path, capsys):
    def measure(model, ratio, squeeze, output):
        dense = replace(SPARSE75, model=model, ratio=0.0, squeeze="", size=9_080_000, of_dense=1.0, sparse=0)
        return [dense, replace(SPARSE75, ratio=ratio, squeeze=squeeze)] if ratio else [dense]

    monkeypatch.setattr(published_table, "measure", measure)
    monkeypatch.setattr(published_table, "measure_latency", lambda model, ratios: LATENCY)
    assert published_table.main() == 1
    printed = capsys.readouterr()
    assert printed.err == "falls short: 85%: 0.596 of the dense size, at most 0.44 is asked\n"
    assert "untrained weights" in printed.out
    assert "machine: a CPU, 2 CPUs, avx2, Linux x86_64" in printed.out


@pytest.mark.slow
def test_the_published_size_is_reached_on_untrained_weights(tmp_path):
    dense, sparse = published_table.measure("m", 0.75, "none", tmp_path)
    assert published_table.shortfalls([sparse, SPARSE85]) == []
    assert (sparse.sparse, sparse.convolutions) == (101, 106)
    assert dense.size == pytest.approx(9.08e6, rel=0.01)
    rows = [" ".join(line.split()) for line in published_table.size_table([dense, sparse]).splitlines()]
    assert rows[-1] == "m (ESNet) 75% none 5.41 0.596 101 of 106"
