import json
from dataclasses import replace

import pytest

from paddle_sparse_cb import HookContext, PrunePlan, make_plan, measure_sparsity
from paddle_sparse_cb.recipe.report_hook import WriteReport
from paddle_sparse_cb.report.schema import read_report

DENSE = {"mAP": 0.309, "AP50": float("nan"), "sparsity": 0.0}


@pytest.fixture
def context(network, tmp_path):
    plan = make_plan(network)
    context = HookContext(network, tmp_path, plan, measure_sparsity(network, plan), 0.75, {"mAP": 0.276, "AP50": 0.5})
    context.checks["pdparams"] = {"sparsity": 0.75, "target": 0.75, "tensors": 9, "wrong": [], "ok": True}
    return context


def write(context, **fields):
    WriteReport("mine", 3, "PicoDet", (320, 416), "digest", **{"dense": DENSE, **fields})(context)
    return read_report(context.output)


def test_the_report_has_the_documented_fields(context):
    report = write(context, checkpoint="best_model")
    assert report.keys() == {
        "recipe",
        "paddle",
        "seed",
        "digest",
        "checkpoint",
        "rows",
        "dense_note",
        "layers",
        "checks",
        "evaluations",
        "bench",
    }
    assert (report["recipe"], report["seed"], report["checkpoint"]) == ("mine", 3, "best_model")
    assert [row["name"] for row in report["rows"]] == ["dense", "sparse"]
    for row in report["rows"]:
        assert row.keys() == {
            "name",
            "model",
            "input_size",
            "target_sparsity",
            "sparsity",
            "map",
            "ap50",
            "nb_bytes",
            "sparse_convs",
            "convs",
        }
    assert report["rows"][0]["map"] == 0.309
    assert report["rows"][1]["map"] == 0.276
    assert report["rows"][1]["target_sparsity"] == 0.75
    assert report["layers"][0].keys() == {"name", "shape", "zeros", "numel", "pruned", "reason"}
    assert report["checks"]["pdparams"]["ok"]
    assert "**Exported checkpoint (.pdparams)**: ok" in (context.output / "report.md").read_text()
    assert (context.output / "report.html").is_file()


def test_values_that_were_not_measured_are_null(context):
    report = write(context)
    assert report["rows"][0]["ap50"] is None
    assert report["rows"][0]["nb_bytes"] is None
    json.loads((context.output / "report.json").read_text(), parse_constant=lambda name: pytest.fail(name))


def test_a_dense_row_that_was_not_measured_does_not_show_the_sparse_accuracy(context):
    assert write(context, dense={})["rows"][0]["map"] is None


def test_a_note_replaces_the_dense_row(context):
    report = write(context, dense={}, dense_note="the weights have other classes")
    assert [row["name"] for row in report["rows"]] == ["sparse"]
    assert "No dense row: the weights have other classes" in (context.output / "report.md").read_text()


@pytest.mark.parametrize("fields", [{"dense": {}}, {"dense": {"mAP": 0.276, "AP50": 0.5, "sparsity": 0.0}}])
def test_a_dense_training_has_one_row(context, fields):
    context.plan = PrunePlan(tuple(replace(layer, pruned=False) for layer in context.plan.layers))
    if fields["dense"]:
        context.metrics.clear()
    report = write(context, **fields)
    assert [(row["name"], row["map"]) for row in report["rows"]] == [("dense", 0.276)]


def test_evaluations_without_a_finite_map_are_left_out(context):
    (context.output / "evaluations.json").write_text(
        '[{"epoch": 0, "sparsity": 0.75, "mAP": null, "AP50": null}, {"epoch": 1, "sparsity": 0.75, "mAP": 0.2}]'
    )
    assert [row["epoch"] for row in write(context)["evaluations"]] == [1]


def test_details_are_added(context):
    report = write(context, details=lambda given: {"commands": [f"paddle-sparse train {given.output.name}"]})
    assert report["commands"] == [f"paddle-sparse train {context.output.name}"]
