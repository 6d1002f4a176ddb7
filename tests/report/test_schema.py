import json

import pytest

from paddle_sparse_cb import InputError
from paddle_sparse_cb.report.schema import read_report, write_report


def test_a_written_report_reads_back_unchanged(report, tmp_path):
    write_report(report, tmp_path)
    assert read_report(tmp_path) == report
    assert {path.name for path in tmp_path.iterdir()} == {"report.json", "report.md", "report.html"}


def test_a_report_never_contains_nan(report, tmp_path):
    report["rows"][0]["map"] = float("nan")
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_report(report, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", '{"rows": []}', "\0", '{"rows": [{}], "digest": ""}', '{"rows": null, "digest": ""}', "[" * 10000],
)
def test_a_damaged_report_is_an_input_error_that_names_the_file(text, tmp_path):
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(InputError, match=r"report\.json: not a valid report"):
        read_report(tmp_path)


def test_a_number_too_large_to_print_is_an_input_error(report, tmp_path):
    report["rows"][0]["sparsity"] = 10**400
    (tmp_path / "report.json").write_text(json.dumps(report))
    with pytest.raises(InputError, match=r"report\.json: not a valid report: OverflowError"):
        read_report(tmp_path)


def test_a_missing_report_says_to_train_first(tmp_path):
    with pytest.raises(InputError, match=r"report\.json: no report; train the recipe first"):
        read_report(tmp_path)


def test_a_report_without_the_optional_fields_is_valid(report, tmp_path):
    (tmp_path / "report.json").write_text(json.dumps({key: report[key] for key in ("rows", "digest")}))
    assert read_report(tmp_path)["rows"] == report["rows"]
