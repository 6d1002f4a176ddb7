import pytest


@pytest.fixture
def report():
    """The report of a sparse run, whose dense AP50 and optimized models were not measured."""
    row = {
        "name": "dense",
        "model": "PicoDet",
        "input_size": [320, 416],
        "target_sparsity": 0.0,
        "sparsity": 0.0,
        "map": 0.309,
        "ap50": None,
        "nb_bytes": None,
        "sparse_convs": None,
        "convs": None,
    }
    sparse = {
        **row,
        "name": "sparse",
        "target_sparsity": 0.75,
        "sparsity": 0.7501,
        "map": 0.276,
        "ap50": 0.5,
        "nb_bytes": 5_410_000,
        "sparse_convs": 101,
        "convs": 106,
    }
    return {
        "recipe": "mine",
        "paddle": "2.6.2",
        "seed": 3,
        "digest": "0" * 64,
        "checkpoint": "best_model",
        "rows": [row, sparse],
        "dense_note": "",
        "layers": [],
        "checks": {"pdparams": {"ok": True, "summary": "ok: 75.0100% zeros in the pruned weights"}},
        "evaluations": [{"epoch": 4, "sparsity": 0.7501, "mAP": 0.276, "AP50": 0.5}],
    }
