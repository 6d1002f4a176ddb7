"""README.md is short, and README_cn.md says the same."""

import re
import shutil
import subprocess

import pytest
from doc_pages import DOCS, README, README_CN, ROOT, blocks, headings, links, name


def prose(page):
    """The text of a page without its code blocks, and without the targets of links."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    return re.sub(r"\]\([^)]*\)", "]", text)


def tables(page):
    """The number of cells in each row of each table."""
    return [line.count("|") for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("|")]


def without_comments(code):
    return [line.split("#")[0].rstrip() for line in code.splitlines()]


@pytest.mark.parametrize("page", [README, README_CN], ids=name)
def test_it_has_at_most_150_lines(page):
    assert len(page.read_text(encoding="utf-8").splitlines()) <= 150


def test_it_begins_with_a_sentence_a_picture_and_the_two_commands():
    lines = [line for line in README.read_text(encoding="utf-8").splitlines() if line]
    assert lines[1].endswith(".")
    assert lines[2].startswith("![")
    first = blocks(README)[0]
    assert first.line < 15
    assert [line.split("#")[0].split() for line in first.code.splitlines()] == [["make", "demo"], ["make", "test"]]


def test_both_languages_have_the_same_structure():
    assert [level for level, _ in headings(README)] == [level for level, _ in headings(README_CN)]
    assert tables(README) == tables(README_CN)


def test_both_languages_have_the_same_code():
    english, chinese = blocks(README), blocks(README_CN)
    assert [block.language for block in english] == [block.language for block in chinese]
    assert [without_comments(block.code) for block in english] == [without_comments(block.code) for block in chinese]
    for first, second in zip(english, chinese):
        assert first.language != "text" or first.code == second.code


def test_both_languages_link_to_the_same_pages():
    others = {"README.md", "README_cn.md"}
    assert set(links(README)) - others == set(links(README_CN)) - others


def test_both_languages_name_the_same_figures_and_the_same_code():
    for pattern in (r"(?<![\w.])\d+(?:\.\d+)*%?", r"`[^`]+`"):
        assert set(re.findall(pattern, prose(README))) == set(re.findall(pattern, prose(README_CN))), pattern


def test_the_ten_lines_are_ten():
    (code,) = (block.code for block in blocks(README) if block.language == "python")
    assert len([line for line in code.splitlines() if line]) <= 10


def test_the_accuracies_are_those_of_the_table_in_the_benchmarks():
    table = (DOCS / "benchmarks.md").read_text(encoding="utf-8")
    row = r"^{} +(?:1x1 +)?(\d+%) +(\d+) +(\d\d\.\d\d) .* (\d+)\.\d+% +[\d.]+% +\d+$"
    dense, distilled, sparse = (
        next(found for found in re.finditer(row.format(method), table, re.M) if found[1] in ("0%", "85%"))
        for method in ("dense, trained on", "dense, trained on, distilled", "GMP, distilled, ratios per layer")
    )
    assert [one[2] for one in (dense, distilled, sparse)] == ["5"] * 3  # seeds
    mean, of_dense, of_distilled = (f"{float(one[3]):.1f}" for one in (sparse, dense, distilled))
    text = " ".join(README.read_text(encoding="utf-8").split())
    assert re.search(rf"with {sparse[4]}% of its [^.]* \[an mAP of {mean}\]", text)
    assert f" The dense network has {of_dense}, or {of_distilled} with the same distillation." in text


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
@pytest.mark.parametrize(
    ("system", "recipe"),
    [("VERSION_CODENAME=bookworm", "192_animals"), ("VERSION_CODENAME=jammy", "416_trees"), (None, "416_trees")],
)
def test_the_demo_finds_animals_on_debian_12_and_trees_elsewhere(system, recipe, tmp_path):
    release = tmp_path / "os-release"
    if system:
        release.write_text(f"ID=any\n{system}\n")
    command = ["make", "-n", "--old-file=.venv/ready", f"OS_RELEASE={release}", "demo"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert f"train recipes/picodet_s_{recipe}_sparse75.yml" in done.stdout
