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
        "checks": {
            "pdparams": {
                "ok": True,
                "sparsity": 0.7501,
                "target": 0.75,
                "tensors": 9,
                "wrong": [],
                "summary": "ok: 75.0100% zeros in the pruned weights",
            }
        },
        "evaluations": [{"epoch": 4, "sparsity": 0.7501, "mAP": 0.276, "AP50": 0.5}],
    }


@pytest.fixture
def full_report(report):
    """The report of a recipe, with all optional fields."""
    layer = {"name": "conv.weight", "shape": [8, 4, 1, 1], "zeros": 24, "numel": 32, "pruned": True, "reason": ""}
    dense = {**layer, "name": "stem.weight", "zeros": 0, "pruned": False, "reason": "3x3 kernel"}
    classes = [
        {"name": "tree", "train_objects": 900, "eval_objects": 90, "dense_ap": 0.5, "sparse_ap": 0.4},
        {"name": "bush", "train_objects": 3, "eval_objects": 0, "dense_ap": None, "sparse_ap": None},
    ]
    side = {"folder": "data", "images": 1234, "objects": 903, "median_size": [640, 480]}
    panels = [{"title": title, "file": f"pictures/eval_1_{title}.jpg"} for title in ("annotated", "dense", "sparse")]
    return {
        **report,
        "layers": [dense, layer],
        "data": {"train": side, "eval": {**side, "images": 24, "objects": 90, "median_size": None}},
        "classes": classes,
        "curves": {
            "sparsity/actual": [[0, 0.0], [10, 0.75]],
            "sparsity/target": [[0, 0.0], [10, 0.75]],
            "train/loss": [[5, 2.5], [10, 1.5]],
            "eval/mAP": [[0, 0.309], [10, 0.276]],
        },
        "pictures": [
            {"split": "train", "image": "a.jpg", "panels": [{"title": "annotated", "file": "pictures/train_1.jpg"}]},
            {"split": "eval", "image": "b.jpg", "panels": panels},
        ],
        "sizes": [{"file": "model_sparse.nb", "bytes": 5_410_000}],
        "versions": {"Paddle": "2.6.2", "Python": "3.11.7"},
        "commands": ["paddle-sparse train mine.yml"],
        "bench": {
            "machine": {"cpu": "CPU", "cores": 2, "features": ["avx2"], "os": "Linux x86_64", "governor": ""},
            "rows": [
                {
                    "runtime": "ONNX Runtime",
                    "version": "1.19.2",
                    "kind": "dense",
                    "ratio": 0.0,
                    "block": [1, 1],
                    "precision": "FP32",
                    "threads": 1,
                    "mb": 3.21,
                    "ms": 12.345,
                    "spread": 0.02,
                    "speedup": None,
                    "speedup_fastest": 0.0,
                    "map": 0.276,
                    "trained": True,
                    "disturbed": False,
                    "note": "",
                    "device": "",
                    "file": "",
                }
            ],
            "notes": [],
        },
    }


@pytest.fixture
def pictures(tmp_path):
    """The folder of a report with the pictures that `full_report` names: JPEG files that no one can see."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("train_1", "eval_1_annotated", "eval_1_dense", "eval_1_sparse"):
        (folder / f"{name}.jpg").write_bytes(b"\xff\xd8\xff" + name.encode())
    return tmp_path
