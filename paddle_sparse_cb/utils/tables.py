"""Tables as plain text, fitted to the terminal, and as Markdown."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import Literal

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

_GAP = 2  # spaces between two columns
_NARROWEST = 10  # characters that a column of text keeps in a narrow terminal
_SIDES: dict[str, Literal["left", "right"]] = {"l": "left", "r": "right"}


def render_table(headers: Sequence[str], rows: Iterable[Sequence[object]], align: str, width: int | None = None) -> str:
    """Renders a table as plain text: the headers, a line of dashes and the rows.

    Columns that do not fit into the width are folded onto several lines. Right-aligned columns hold numbers, whose
    cells are never broken; a table that is still too wide then exceeds the width.

    Args:
        headers: one per column.
        rows: cells, converted with `str`.
        align: one letter per column, `l` for left or `r` for right.
        width: available width in characters. `None` uses the terminal's width if standard output is a terminal, and
            no limit otherwise.

    Returns:
        The lines of the table, without trailing spaces and without a final newline.

    Raises:
        ValueError: the number of letters or of the cells in a row differs from the number of headers.

    Examples:
        >>> print(render_table(["layer", "zeros"], [["stem", "0"], ["project", "1,536"]], "lr"))
        layer    zeros
        -------  -----
        stem         0
        project  1,536
    """
    cells = [[str(cell) for cell in row] for row in rows]
    if any(len(row) != len(headers) for row in (align, *cells)):
        raise ValueError(f"a table of {len(headers)} headers needs as many letters in align and cells in each row")
    if width is None and sys.stdout.isatty():
        width = shutil.get_terminal_size().columns
    widths = _column_widths(headers, cells, align, width)
    table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False)
    for header, letter, column_width in zip(headers, align, widths):
        table.add_column(Text(header), justify=_SIDES[letter], width=column_width, overflow="fold")
    for row in (["-" * column_width for column_width in widths], *cells):
        table.add_row(*map(Text, row))
    buffer = io.StringIO()
    console = Console(
        file=buffer,
        width=sum(widths) + _GAP * len(widths),  # exactly the table's, so that rich neither crops nor shrinks it
        color_system=None,
        force_terminal=False,
        force_jupyter=False,  # in a notebook, rich would display the table at once and write nothing to the file
    )
    console.print(table)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines())


def _column_widths(headers: Sequence[str], cells: list[list[str]], align: str, width: int | None) -> list[int]:
    """Natural column widths, reduced until the table fits: first headers are folded, then cells of text."""
    longest = [max((cell_len(row[column]) for row in cells), default=0) for column in range(len(headers))]
    header_words = [max(map(cell_len, header.split()), default=1) for header in headers]
    whole_cells = [max(sizes) for sizes in zip(longest, header_words)]
    folded_cells = [
        max(least, size if letter == "r" else min(size, _NARROWEST))
        for least, size, letter in zip(header_words, longest, align)
    ]
    widths = [max(cell_len(header), size) for header, size in zip(headers, whole_cells)]
    for minimums in (whole_cells, folded_cells):
        while width is not None and sum(widths) + _GAP * (len(widths) - 1) > width:
            reducible = [column for column, minimum in enumerate(minimums) if widths[column] > minimum]
            if not reducible:
                break
            widths[max(reducible, key=lambda column: widths[column])] -= 1
    return widths


def markdown_table(headers: Sequence[str], rows: Iterable[Sequence[object]], align: str) -> str:
    """Renders a GitHub-flavoured Markdown table.

    Args:
        headers: one per column.
        rows: cells, converted with `str`.
        align: one letter per column, `l` for left or `r` for right.
    """
    from tabulate import tabulate  # here: it is slow to import and rarely needed

    return tabulate(
        rows, headers=headers, tablefmt="github", disable_numparse=True, colalign=[_SIDES[letter] for letter in align]
    )
