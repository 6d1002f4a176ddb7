import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddle_sparse_cb.utils.text import is_one_line, one_line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("cat\n", "cat"),
        ("a\u2028b", "a b"),
        ("\x1b[2J", "[2J"),
        ("\ud800", "?"),
        ("人　物", "人　物"),
        ("a \x1c b", "a b"),
    ],
)
def test_control_characters_and_line_breaks_are_spaces(text, line):
    assert one_line(text) == line


@given(st.text())
def test_any_text_becomes_one_line_and_stays_as_it_is_then(text):
    line = one_line(text)
    assert is_one_line(line)
    assert len(line.splitlines()) <= 1
    assert one_line(line) == line
    line.encode()
