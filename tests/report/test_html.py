import copy
import json
import re
from html.parser import HTMLParser

import pytest

from paddle_sparse_cb.report.html import report_html
from paddle_sparse_cb.report.schema import read_report, write_report

# Attributes through which a page loads something or runs a script.
LOADING = {"src", "href", "action", "formaction", "data", "poster", "srcset", "background", "xlink:href", "ping"}


class Page(HTMLParser):
    """The elements, attributes and text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_data(self, data):
        self.text.append(data)

    @property
    def words(self):
        return re.sub(r"\s+", " ", " ".join(self.text))


def check_harmless(page):
    assert not {"script", "iframe", "object", "embed", "form", "base", "link"} & set(page.tags)
    for tag, name, value in page.attributes:
        assert not name.startswith("on"), (tag, name, value)
        assert name not in LOADING or value.startswith("data:image/jpeg;base64,"), (tag, name, value)
    csp = [value for tag, name, value in page.attributes if tag == "meta" and "default-src" in (value or "")]
    assert csp == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_the_page_shows_what_the_report_holds(full_report, pictures):
    page = Page(report_html(full_report, pictures))
    check_harmless(page)
    for words in (
        "75.0% of the weights to prune; asked for 75.0%",
        "27.6 3.3 points less than dense (30.9)",
        "passed all 1 checks of the files",
        "Where dense and sparse differ most",
        "mAP against sparsity",
        "tree 50.0 → 40.0",
        "3x3 kernel",
        "ONNX Runtime 1.19.2 dense 0.0% 1x1 FP32 1 3.21 12.35 2.0% 81.0 - 0% 27.6",
        "model_sparse.nb 5,410,000 5.41",
        "training 1,234 903 640 x 480 data",
        "bush 3 0",
        "75.01% of the weights to prune are zero",
        "paddle-sparse train mine.yml",
        "Python 3.11.7",
    ):
        assert words in page.words
    sources = [value for _, name, value in page.attributes if name == "src"]
    assert len(sources) == 4
    assert page.tags.count("svg") == 4


def test_a_report_without_the_optional_fields_has_a_page(report, tmp_path):
    page = Page(report_html(report, tmp_path))
    check_harmless(page)
    assert "Verification" in page.words
    minimal = {key: report[key] for key in ("rows", "digest")}
    assert "PicoDet" in Page(report_html(minimal, tmp_path)).words


def test_a_dense_run_has_a_page_too(full_report, pictures):
    dense = {**full_report, "rows": full_report["rows"][:1], "layers": [], "checks": {}}
    for one in dense["classes"]:
        one["sparse_ap"] = None
    page = Page(report_html(dense, pictures))
    assert "30.9 of the dense network" in page.words
    assert "tree 50.0 " in page.words
    assert "→" not in page.words


EVIL = "\"'><img src=x onerror=alert(1)><script>alert(2)</script>{{ 7 * 7 }}{% raw %}</style><a href=javascript:x>&lt;"


def replace_texts(value, text):
    """Replaces every text of a report, keys of tables and names of rows excepted."""
    if isinstance(value, dict):
        return {
            key: one
            if key in ("name", "split", "file") and one in ("dense", "sparse", "train", "eval")
            else replace_texts(one, text)
            for key, one in value.items()
        }
    if isinstance(value, list):
        return [replace_texts(one, text) for one in value]
    return text if isinstance(value, str) else value


def test_no_text_of_a_stranger_becomes_markup(full_report, pictures):
    evil = replace_texts(full_report, EVIL)
    evil["checks"] = {EVIL: {"ok": False, "problems": [EVIL], "summary": EVIL}}
    evil["pictures"] = [{**one, "image": EVIL} for one in full_report["pictures"]]
    for picture in evil["pictures"]:
        for panel in picture["panels"]:
            panel["title"] = EVIL
    text = report_html(evil, pictures)
    page = Page(text)
    check_harmless(page)
    assert "{{ 7 * 7 }}" in page.words
    assert "49" not in page.words
    assert page.tags.count("style") == 1
    assert page.tags.count("img") == 4
    assert page.tags.count("a") == 0


def test_text_that_is_not_valid_unicode_can_be_written(full_report, pictures):
    write_report(replace_texts(full_report, "a\ud800\x00b"), pictures)
    assert "a?" in (pictures / "report.html").read_text()


@pytest.mark.parametrize(
    "file",
    ["../secret.jpg", "/etc/passwd", "pictures/../secret.jpg", "pictures/none.jpg", "pictures/text.jpg", "report.json"],
)
def test_only_pictures_of_the_output_folder_are_embedded(full_report, pictures, file):
    output = pictures / "output"
    (output / "pictures").mkdir(parents=True)
    (pictures / "secret.jpg").write_bytes(b"\xff\xd8\xffsecret")
    (output / "pictures" / "text.jpg").write_text("secret")
    full_report["pictures"] = [{"split": "eval", "image": "b", "panels": [{"title": "dense", "file": file}]}]
    assert "<img" not in report_html(full_report, output)


def test_more_than_twenty_classes_begin_with_those_that_changed_most(full_report, pictures):
    full_report["classes"] = [
        {"name": f"class{n}", "train_objects": 1, "eval_objects": 1, "dense_ap": 0.5, "sparse_ap": 0.5 - n / 100}
        for n in range(30)
    ]
    text = Page(report_html(full_report, pictures)).words
    assert "10 more classes" in text
    assert text.index("class29 50.0 → 21.0") < text.index("class10 50.0 → 40.0") < text.index("class9 50.0 → 41.0")


def test_a_failed_check_cannot_be_overlooked(full_report, pictures):
    full_report["checks"]["pdparams"].update(ok=False, wrong=["conv.weight"])
    page = Page(report_html(full_report, pictures)).words
    assert "failed 1 of 1 checks failed" in page
    assert "Exported checkpoint (.pdparams): failed" in page


def test_bench_rows_that_were_added_later_are_shown_with_the_pictures(full_report, pictures):
    bench = full_report.pop("bench")
    write_report(full_report, pictures)
    assert "No latency was measured" in (pictures / "report.html").read_text()
    report = read_report(pictures)
    write_report({**report, "bench": bench}, pictures)
    page = Page((pictures / "report.html").read_text())
    assert "ONNX Runtime" in page.words
    assert "12.35" in page.words or "12.34" in page.words
    assert page.tags.count("img") == 4


def test_rendering_changes_nothing_in_the_report(full_report, pictures):
    before = json.dumps(full_report)
    report_html(full_report, pictures)
    assert json.dumps(full_report) == before == json.dumps(copy.deepcopy(full_report))
