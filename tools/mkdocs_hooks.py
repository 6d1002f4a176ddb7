"""What `mkdocs.yml` has done to the pages of the site."""

import posixpath
import re
from typing import Any


def on_page_markdown(markdown: str, page: Any, **_: object) -> str:
    """Leaves out links to files outside of `docs/`, such as examples, which the repository has and the site has not."""
    folder = posixpath.dirname(page.file.src_uri)

    def without_link(match: "re.Match[str]") -> str:
        is_outside = posixpath.normpath(posixpath.join(folder, match[2])).startswith("../")
        return match[1] if is_outside else match[0]

    return re.sub(r"(?<!!)\[([^]]+)\]\((?!\w+:)([^)#\s]+)[^)]*\)", without_link, markdown)
