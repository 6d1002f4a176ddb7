"""The Markdown pages of the project: their headings, links and fenced code blocks."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
README, README_CN = ROOT / "README.md", ROOT / "README_cn.md"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "examples").rglob("*.md")])

_FENCE = re.compile(r"^( *)(```+)([^\n`]*)\n(.*?)^\1\2 *$", re.M | re.S)
# <!-- not run: REASON --> before a block that cannot run here.
_NOT_RUN = re.compile(r"<!-- not run: (.+?) -->\s*\Z")


@dataclass(frozen=True)
class Block:
    """A fenced code block.

    Attributes:
        page: the file.
        line: the line of its first fence.
        language: what follows the fence, such as `python`.
        code: its lines.
        not_run: why it cannot run here; empty if it can.
    """

    page: Path
    line: int
    language: str
    code: str
    not_run: str

    def __str__(self):
        return f"{name(self.page)}:{self.line}"


def name(page):
    """The path of a page in the repository."""
    return str(page.relative_to(ROOT))


def blocks(page):
    """The code blocks of a page in their order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        marker = _NOT_RUN.search(text, 0, match.start())
        indent = match[1]
        code = "".join(line.removeprefix(indent) for line in match[4].splitlines(keepends=True))
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(page, line, match[3].strip(), code, marker[1] if marker else ""))
    return found


def prose(page):
    """A page without its code blocks and the code in its lines."""
    return re.sub(r"`[^`\n]+`", "``", _FENCE.sub("\n", page.read_text(encoding="utf-8")))


def headings(page):
    """The headings of a page: [(level, text)]."""
    text = _FENCE.sub("\n", page.read_text(encoding="utf-8"))
    return [(len(level), heading) for level, heading in re.findall(r"^(#+) (.+)$", text, re.M)]


def anchor(heading):
    """The anchor of a heading on GitHub and in the site, which must be the same."""
    plain = re.sub(r"[`*]", "", heading).lower().strip()
    kept = re.sub(r"[^\w\s-]", "", plain)
    github, site = re.sub(r"\s", "-", kept), re.sub(r"[\s-]+", "-", kept)
    assert github == site, f"{heading!r} has another anchor on GitHub ({github}) than in the site ({site})"
    return site


def links(page):
    """The targets of a page's links and images."""
    return re.findall(r"\]\(([^)\s]+)\)", prose(page))
