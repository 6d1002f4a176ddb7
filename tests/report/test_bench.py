"""The table of a benchmark, and where the time goes."""

import pytest

from paddle_sparse_cb.report.bench import bench_markdown, bench_table, headline, layer_summary
from paddle_sparse_cb.report.markdown import report_markdown
from paddle_sparse_cb.report.table import report_table

MACHINE = {"cpu": "AMD EPYC", "cores": 2, "features": ["avx2", "fma"], "os": "Linux x86_64", "governor": "performance"}


def row(runtime, kind, ms, speedup, speedup_fastest, **more):
    return {
        "runtime": runtime,
        "version": "3.6.1",
        "kind": kind,
        "ratio": 0.75 if kind == "sparse" else 0.0,
        "block": [1, 1],
        "precision": "FP32",
        "threads": 1,
        "mb": 4.7,
        "ms": ms,
        "spread": 0.015,
        "speedup": speedup,
        "speedup_fastest": speedup_fastest,
        "map": None,
        "trained": True,
        "disturbed": False,
        "note": "",
        "device": "",
        "file": "",
        **more,
    }


@pytest.fixture
def bench():
    rows = [
        row("ONNX Runtime", "dense", 22.6, None, 0.0),
        row("MNN", "dense", 24.9, None, -0.0924),
        row("MNN", "sparse", 20.8, 0.197, 0.0865),
        row("MNN", "sparse", 16.4, 0.518, 0.378, block=[4, 1], trained=False, note="other weights", disturbed=True),
    ]
    return {"machine": MACHINE, "rows": rows, "notes": ["OpenVINO is not installed"]}


# Columns are separated by two spaces.
TABLE = [
    "runtime       version  kernels  zeros  block  precision  threads    MB      ms  spread   FPS"
    "  speed-up  over fastest dense",
    "ONNX Runtime  3.6.1    dense     0.0%    1x1  FP32             1  4.70   22.60    1.5%  44.2"
    "         -                  0%",
    "MNN           3.6.1    dense     0.0%    1x1  FP32             1  4.70   24.90    1.5%  40.2"
    "         -                 -9%",
    "MNN           3.6.1    sparse   75.0%    1x1  FP32             1  4.70   20.80    1.5%  48.1"
    "      +20%                 +9%",
    "MNN           3.6.1    sparse   75.0%    4x1  FP32             1  4.70  16.40*    1.5%  61.0"
    "      +52%                +38%",
    "machine: AMD EPYC, 2 CPUs, avx2 fma, Linux x86_64, governor performance",
]


def test_the_table_for_the_terminal(bench):
    header, dashes, *printed = bench_table(bench).splitlines()
    assert [header, *printed[:5]] == TABLE
    assert set(dashes) == {"-", " "}
    assert printed[-3:] == [
        "* disturbed by other work on this machine: measure again when it is idle",
        "MNN sparse 4x1: other weights",
        "OpenVINO is not installed",
    ]


def test_columns_that_no_row_needs_are_left_out(bench):
    bench["rows"][2].update(map=0.118, device="phone", file="model_sparse.mnn")
    header = bench_table(bench).splitlines()[0].split()
    assert header[:2] == ["device", "file"]
    assert header[-1] == "mAP"
    assert "11.8" in bench_table(bench)


def test_a_note_on_all_rows_is_printed_alone(bench):
    for one in bench["rows"]:
        one["note"] = "untrained weights"
    assert "\nuntrained weights\n" in bench_table(bench)


def test_in_markdown_each_caption_is_a_paragraph(bench):
    table, *captions = bench_markdown(bench).split("\n\n")
    assert len(table.splitlines()) == 6
    assert captions == bench_table(bench).splitlines()[6:]


def test_the_report_has_columns_for_the_latency_where_it_was_measured(report, bench):
    header, _, dense, sparse, *captions = report_table({**report, "bench": bench}).splitlines()
    assert header.split()[-5:] == ["ms", "speed-up", "over", "fastest", "dense"]
    assert dense.split()[-3:] == ["22.60", "-", "0%"]
    assert sparse.split()[-3:] == ["20.80", "+20%", "+9%"]  # of the trained weights
    assert captions[-1] == "ms: on 1 thread, the fastest of each: dense in ONNX Runtime 3.6.1, sparse in MNN 3.6.1"
    assert "ms" not in report_table({**report, "bench": None}).split()
    assert "## Latency\n\n| runtime" in report_markdown({**report, "bench": bench})
    assert "## Latency" not in report_markdown(report)


def test_the_headline_is_of_the_smallest_number_of_threads(bench):
    bench["rows"] += [row("MNN", "dense", 5.0, None, 0.0, threads=4)]
    assert {kind: one["ms"] for kind, one in headline(bench).items()} == {"dense": 22.6, "sparse": 20.8}
    assert headline({"rows": []}) == {}


def layer(purpose, ms, sparse_ms):
    return {"purpose": purpose, "ms_dense": ms, "sparse": [{"ratio": 0.75, "block": [4, 1], "ms": sparse_ms}]}


def test_the_summary_of_the_layers_says_what_remains():
    layers = {
        "runtime": "MNN",
        "models": [
            {"kind": "dense", "ratio": 0.0, "block": [1, 1], "ms": 24.0},
            {"kind": "sparse", "ratio": 0.75, "block": [4, 1], "ms": 15.0},
        ],
        "layers": [
            layer("activations", 2.0, 2.0),
            layer("pruned convolutions", 10.0, 5.0),
            layer("pruned convolutions", 6.0, 2.0),
            layer("depthwise convolutions", 6.0, 6.0),
        ],
    }
    header, _, first, second, third, total, remains = layer_summary(layers).splitlines()
    assert header.split()[-4:] == ["75%", "4x1", "ms", "dense"]
    assert first.split() == ["pruned", "convolutions", "2", "16.00", "67%", "7.00", "#" * 24]
    assert second.split() == ["depthwise", "convolutions", "1", "6.00", "25%", "6.00", "#" * 9]
    assert third.split() == ["activations", "1", "2.00", "8%", "2.00", "#" * 3]
    assert total.split() == ["all", "4", "24.00", "100%", "15.00"]
    assert remains.startswith("MNN, one thread; what is not pruned takes 8.00 ms; if pruned layers took no time, ")
    assert remains.endswith("the model would be +200% faster")
