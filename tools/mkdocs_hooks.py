"""What `mkdocs.yml` has done to the pages of the site."""

import re


def on_page_markdown(markdown: str, **_: object) -> str:
    """Leaves out links to files that are not in the site, such as examples; the repository has them."""
    return re.sub(r"(?<!!)\[([^]]+)\]\((?:\.\./)+(?:examples|recipes|[A-Z]\w*\.md)[^)]*\)", r"\1", markdown)
