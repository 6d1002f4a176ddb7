import json

import pytest

from paddle_sparse_cb import HookContext, InputError, make_plan, measure_sparsity
from paddle_sparse_cb.report.report import WriteReport, read_report, table


@pytest.fixture
def context(network, tmp_path):
    plan = make_plan(network)
    made = HookContext(network, tmp_path, plan, measure_sparsity(network, plan), 0.75, {"mAP": 0.276, "AP50": 0.5})
    made.checks["pdparams"] = {"sparsity": 0.75, "target": 0.75, "wrong": [], "ok": True}
    return made


def write(context):
    dense = {"mAP": 0.309, "AP50": float("nan"), "sparsity": 0.0}
    WriteReport("mine", 3, "PicoDet", (320, 416), "digest", dense)(context)
    return read_report(context.output)


def test_the_report_has_the_promised_fields(context):
    report = write(context)
    assert report["recipe"] == "mine"
    assert report["seed"] == 3
    assert [row["name"] for row in report["rows"]] == ["dense", "sparse"]
    for row in report["rows"]:
        assert row.keys() == {"name", "model", "input_size", "target_sparsity", "sparsity", "map", "ap50", "nb_bytes",
                              "sparse_convs", "convs"}
    assert report["rows"][0]["map"] == 0.309
    assert report["rows"][1]["map"] == 0.276
    assert report["rows"][1]["target_sparsity"] == 0.75
    assert report["layers"][0].keys() == {"name", "shape", "zeros", "numel", "pruned", "reason"}
    assert report["checks"]["pdparams"]["ok"]


def test_what_was_not_measured_is_null_and_a_dash(context):
    report = write(context)
    assert report["rows"][0]["ap50"] is None
    assert report["rows"][0]["nb_bytes"] is None
    assert "NaN" not in (context.output / "report.json").read_text()
    assert " - " in table(report)


def test_the_table_and_the_markdown_show_the_figures(context):
    report = write(context)
    assert "30.9" in table(report)
    assert "27.6" in table(report)
    text = (context.output / "report.md").read_text()
    assert "| dense" in text
    assert "`pdparams`: ok" in text


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"rows": []}', "\0", '{"rows": [{}], "digest": ""}',
                                  '{"rows": null, "digest": ""}', "[" * 10000])
def test_a_damaged_report_is_named(text, tmp_path):
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(InputError, match="report.json: no report of ours"):
        read_report(tmp_path)


def test_no_report_says_what_to_do(tmp_path):
    with pytest.raises(InputError, match="train the recipe first"):
        read_report(tmp_path)


def test_the_report_is_plain_json(context):
    write(context)
    json.loads((context.output / "report.json").read_text(), parse_constant=lambda name: pytest.fail(name))


def test_a_number_too_large_for_a_report_is_named(context):
    report = write(context)
    report["rows"][0]["sparsity"] = 10**400
    (context.output / "report.json").write_text(json.dumps(report))
    with pytest.raises(InputError, match=r"report.json: no report of ours: OverflowError"):
        read_report(context.output)
