"""Checks the site that MkDocs built: it loads nothing from other hosts, and its reference is complete and well formed.

python tools/check_site.py output/site
"""

import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import paddle_sparse_cb

# Attributes by which a page loads something as it is opened. Links that are followed by a click are not among them.
LOADING = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "link": "href"}
# Of `link`, those that load.
RELATIONS = {"stylesheet", "icon", "preload", "preconnect", "dns-prefetch", "manifest"}


class Page(HTMLParser):
    """What a page loads, the anchors in it, and the text outside of code."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.text = ""
        self._silent = 0
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, "str | None"]]) -> None:
        values = dict(attributes)
        self._silent += tag in ("code", "script", "style")
        self.anchors.add(values.get("id") or "")
        if tag in LOADING and (tag != "link" or RELATIONS & set((values.get("rel") or "").split())):
            self.loaded.append(values.get(LOADING[tag]) or "")

    def handle_endtag(self, tag: str) -> None:
        self._silent -= tag in ("code", "script", "style")

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.text += data


def problems(site: Path) -> Iterator[str]:
    """Yields what is wrong with a site."""
    pages = {path: Page(path) for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        yield from (f"{path}: loads {url}" for url in page.loaded if re.match(r"(?:\w+:)?//", url))
        if ">>>" in page.text:  # a section that is not one of Google's, such as `Example:`
            yield f"{path}: an example is not shown as code"
    for style in site.rglob("*.css"):
        yield from (
            f"{style}: loads {url}" for url in re.findall(r"url\(\"?((?:https?:)?//[^)\"]+)", style.read_text())
        )
    anchors = set().union(*(page.anchors for page in pages.values()))
    missing = [name for name in paddle_sparse_cb.__all__ if f"paddle_sparse_cb.{name}" not in anchors]
    yield from (f"paddle_sparse_cb.{name} is not in the reference" for name in missing)


if __name__ == "__main__":
    found = list(problems(Path(sys.argv[1])))
    print("\n".join(found) or f"{sys.argv[1]}: loads nothing from other hosts; the reference is complete")
    sys.exit(bool(found))
