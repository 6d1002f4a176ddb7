"""The messages that the page on troubleshooting explains are messages of the package."""

import ast
import re

import pytest
from doc_pages import DOCS, ROOT

MESSAGES = re.findall(r"<!-- message -->`([^`]+)`", (DOCS / "troubleshooting.md").read_text(encoding="utf-8"))


def literals():
    """The text of all strings of the package, with \\0 where a value is inserted."""
    for path in (ROOT / "paddle_sparse_cb").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
            elif isinstance(node, ast.JoinedStr):
                yield "".join(str(part.value) if isinstance(part, ast.Constant) else "\0" for part in node.values)


LITERALS = list(literals())


@pytest.mark.parametrize("message", MESSAGES)
def test_the_message_is_one_of_the_package(message):
    parts = [part.strip() for part in message.split("...") if part.strip()]
    pattern = re.compile(".*".join(map(re.escape, parts)), re.S)
    assert any(pattern.search(literal) for literal in LITERALS), message


def test_messages_are_found():
    assert len(MESSAGES) > 20
