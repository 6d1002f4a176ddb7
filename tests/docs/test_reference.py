"""The API reference has every public name, and the check of the built site finds what is wrong with one."""

import re
from types import SimpleNamespace

import check_site
import mkdocs_hooks
import pytest
import yaml
from doc_pages import DOCS, ROOT, name

import paddle_sparse_cb
from paddle_sparse_cb import deploy

REFERENCE = re.findall(
    r"^::: ([\w.]+)$", "\n".join(page.read_text(encoding="utf-8") for page in (DOCS / "api").glob("*.md")), re.M
)


@pytest.mark.parametrize("module", [paddle_sparse_cb, deploy], ids=lambda module: module.__name__)
def test_every_public_name_is_in_the_reference_once(module):
    listed = [name for name in REFERENCE if name.rpartition(".")[0] == module.__name__]
    assert sorted(listed) == sorted(f"{module.__name__}.{name}" for name in module.__all__)


def test_every_page_is_in_the_navigation():
    navigation = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    listed = re.findall(r"[\w/]+\.md", str(navigation))
    assert sorted(listed) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))


GOOD = "".join(f'<h2 id="paddle_sparse_cb.{name}"></h2>' for name in paddle_sparse_cb.__all__)


def test_a_site_without_fault_is_accepted(tmp_path):
    code = "<pre><code>&gt;&gt;&gt; 1</code></pre>"
    links = '<a href="https://example.org">a link</a><link rel="canonical" href="https://example.org">'
    (tmp_path / "index.html").write_text(GOOD + code + links + '<script src="assets/a.js"></script>')
    assert list(check_site.problems(tmp_path)) == []


@pytest.mark.parametrize(
    ("html", "problem"),
    [
        ('<link rel="stylesheet" href="https://fonts.example.org/css">', "loads https://fonts.example.org/css"),
        ('<script src="//example.org/a.js"></script>', "loads //example.org/a.js"),
        ('<img src="http://example.org/a.png">', "loads http://example.org/a.png"),
        ("<p>&gt;&gt;&gt; 1 + 1</p>", "an example is not shown as code"),
    ],
)
def test_what_a_site_loads_and_what_it_shows_badly_is_found(html, problem, tmp_path):
    (tmp_path / "index.html").write_text(GOOD + html)
    assert list(check_site.problems(tmp_path)) == [f"{tmp_path / 'index.html'}: {problem}"]


def test_a_name_that_the_reference_lacks_is_found(tmp_path):
    (tmp_path / "index.html").write_text(GOOD.replace("paddle_sparse_cb.GMPPruner", ""))
    assert list(check_site.problems(tmp_path)) == ["paddle_sparse_cb.GMPPruner is not in the reference"]


def test_examples_in_docstrings_are_shown_as_code():
    """Only code with prompts or fences is: other code would be shown as a paragraph."""
    sources = sorted((ROOT / "paddle_sparse_cb").rglob("*.py"))
    firsts = {
        name(path): re.findall(r"^ *Examples?:\n+ *(.*)$", path.read_text(encoding="utf-8"), re.M) for path in sources
    }
    assert sum(map(len, firsts.values())) > 30
    wrong = {file: [line for line in lines if not line.startswith((">>>", "```"))] for file, lines in firsts.items()}
    assert {file: lines for file, lines in wrong.items() if lines} == {}


@pytest.mark.parametrize(
    ("source", "text", "shown"),
    [
        ("deploy.md", "[runner](../examples/lite_runner/README.md#build)", "runner"),
        ("api/deploy.md", "[Deployment](../deploy.md)", "[Deployment](../deploy.md)"),
        ("api/deploy.md", "[house](../../CONTRIBUTING.md)", "house"),
        (
            "deploy.md",
            "[MNN](mnn.md), [web](https://example.org/../a)",
            "[MNN](mnn.md), [web](https://example.org/../a)",
        ),
        ("deploy.md", "![picture](../picture.png)", "![picture](../picture.png)"),
    ],
)
def test_links_to_files_outside_of_the_site_are_text(source, text, shown):
    page = SimpleNamespace(file=SimpleNamespace(src_uri=source))
    assert mkdocs_hooks.on_page_markdown(text, page=page, config=None) == shown
