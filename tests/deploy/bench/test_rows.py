"""The arithmetic of the speed-ups."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddle_sparse_cb.deploy.bench.rows import Row, compare

ROW = Row("MNN", "3.6.1", "dense", 0.0, (1, 1), "FP32", 1, 8.6, 10.0, 0.01)

rows = st.lists(
    st.builds(
        lambda runtime, kind, threads, ms, device, group: replace(
            ROW, runtime=runtime, kind=kind, threads=threads, ms=ms, device=device, group=group
        ),
        st.sampled_from(["MNN", "OpenVINO"]),
        st.sampled_from(["dense", "sparse"]),
        st.sampled_from([1, 4]),
        st.floats(1e-3, 1e4),
        st.sampled_from(["", "phone"]),
        st.sampled_from(["", "other"]),
    ),
    max_size=12,
)


def fastest(rows, row, runtime=None):
    return min(
        (
            one.ms
            for one in rows
            if one.kind == "dense"
            and (one.threads, one.device, one.group) == (row.threads, row.device, row.group)
            and runtime in (None, one.runtime)
        ),
        default=None,
    )


@given(rows)
def test_a_speed_up_is_dense_minus_sparse_over_sparse(rows):
    for row in compare(rows):
        dense, own = fastest(rows, row), fastest(rows, row, row.runtime)
        if dense is None:
            assert row.speedup_fastest is None
        else:
            assert row.ms * (1 + row.speedup_fastest) == pytest.approx(dense)
        if row.kind == "dense" or own is None:
            assert row.speedup is None
        else:
            assert row.ms * (1 + row.speedup) == pytest.approx(own)


@given(rows)
def test_no_dense_row_is_faster_than_the_fastest_one(rows):
    for row in compare(rows):
        if row.kind == "dense":
            assert row.speedup_fastest <= 0


def test_the_published_figures():
    """PicoDet-m on one thread of a Snapdragon 835: 127 ms dense, 80 ms with 75%, 58% faster."""
    dense, sparse = compare([replace(ROW, ms=127.0), replace(ROW, kind="sparse", ms=80.0)])
    assert (dense.speedup, dense.speedup_fastest) == (None, 0.0)
    assert sparse.speedup == sparse.speedup_fastest == pytest.approx(0.5875)


def test_fp16_counts_as_the_fastest_dense_row_but_not_as_the_own_dense_side():
    found = compare(
        [replace(ROW, ms=28.4), replace(ROW, ms=14.8, precision="FP16"), replace(ROW, kind="sparse", ms=17.0)]
    )
    assert found[2].speedup == pytest.approx(28.4 / 17.0 - 1)
    assert found[2].speedup_fastest == pytest.approx(14.8 / 17.0 - 1)


def test_a_row_is_saved_with_the_documented_keys():
    assert ROW.to_dict() == {
        "runtime": "MNN",
        "version": "3.6.1",
        "kind": "dense",
        "ratio": 0.0,
        "block": [1, 1],
        "precision": "FP32",
        "threads": 1,
        "mb": 8.6,
        "ms": 10.0,
        "spread": 0.01,
        "speedup": None,
        "speedup_fastest": None,
        "map": None,
        "trained": False,
        "disturbed": False,
        "note": "",
        "device": "",
        "file": "",
        "cluster": "",
        "cpus": [],
        "temperature": None,
    }
    assert ROW.fps == 100
