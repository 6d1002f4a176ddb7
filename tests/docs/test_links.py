"""Links in the pages, and what the package says of pages, lead to a file and a heading that exist."""

import re

import pytest
from doc_pages import DOCS, PAGES, ROOT, anchor, headings, links, name


def dead(page, targets):
    """The targets that lead nowhere from a page; addresses in the web are not opened."""
    for link in targets:
        if re.match(r"https?://|mailto:", link):
            continue
        path, _, fragment = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.is_relative_to(ROOT) or not target.exists():
            yield f"{name(page)}: {link}: no such file"
        elif fragment and fragment not in {anchor(heading) for _, heading in headings(target)}:
            yield f"{name(page)}: {link}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    assert list(dead(page, links(page))) == []


@pytest.mark.parametrize("link", ["nothing.md", "../nothing", "data.md#nothing", "#nothing", "../../outside"])
def test_dead_links_are_found(link):
    assert len(list(dead(DOCS / "index.md", [link]))) == 1


def test_pages_that_code_refers_to_exist():
    files = [*(ROOT / "paddle_sparse_cb").rglob("*.py"), *(ROOT / "tools").glob("*.py"), ROOT / "CHANGELOG.md"]
    named = {(name(file), page) for file in files for page in re.findall(r"\bdocs/[\w/]+\.md", file.read_text("utf-8"))}
    assert named
    assert {(file, page) for file, page in named if not (ROOT / page).is_file()} == set()
