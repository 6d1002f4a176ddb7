import pytest

from paddle_sparse_cb.utils.tables import markdown_table, render_table

HEADERS = ["weight", "shape", "mAP 0.5:0.95", "bytes"]
ROWS = [
    ["backbone.blocks2.0.pw_conv.conv.weight", "960x160x1x1", "30.9", "1,526,198"],
    ["[bold]head[/bold] :smile:", "a layer with a stride of 2", "-", "0"],
]
ALIGN = "llrr"


def test_a_table_has_headers_dashes_and_rows():
    assert render_table(["layer", "zeros in the file"], [["stem", 0], ["project", "1,536"]], "lr").splitlines() == [
        "layer    zeros in the file",
        "-------  -----------------",
        "stem                     0",
        "project              1,536",
    ]


def test_without_a_terminal_the_width_is_unlimited_and_cells_are_printed_as_they_are():
    row = ["x" * 500, "[bold]head[/bold] :smile:", "1"]
    assert render_table(["", "", ""], [row], "llr").splitlines()[-1] == "  ".join(row)


@pytest.mark.parametrize("width", range(50, 100))
def test_a_table_fits_the_width(width):
    lines = render_table(HEADERS, ROWS, ALIGN, width).splitlines()
    assert max(map(len, lines)) <= width


@pytest.mark.parametrize("width", [1, 20, 40, 60, 80, 100])
def test_numbers_are_never_broken(width):
    lines = [line.split() for line in render_table(HEADERS, ROWS, ALIGN, width).splitlines()]
    for number in ("30.9", "1,526,198"):
        assert sum(number in line for line in lines) == 1


@pytest.mark.parametrize("width", [1, 20, 30, 80])
def test_folded_text_loses_no_character(width):
    name = "backbone.blocks2.0.pw_conv.conv.weight"
    _, dashes, *body = render_table(["weight", "zeros"], [[name, "7"]], "lr", width).splitlines()
    name_width = dashes.index(" ")
    assert "".join(line[:name_width].strip() for line in body) == name
    assert (len(body) == 1) == (width == 80)


def test_headers_are_folded_before_text():
    natural = len(render_table(HEADERS, ROWS, ALIGN).splitlines()[1])
    folded = render_table(HEADERS, ROWS, ALIGN, natural - 2).splitlines()
    assert len(folded) == 5  # one more line of headers
    assert ROWS[0][0] in folded[3]


def test_the_terminals_width_is_used_when_standard_output_is_a_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    wide = render_table(HEADERS, ROWS, ALIGN)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert render_table(HEADERS, ROWS, ALIGN) == render_table(HEADERS, ROWS, ALIGN, 60) != wide


@pytest.mark.parametrize("width", [None, 30])
def test_a_table_has_no_colours_and_no_trailing_spaces(monkeypatch, width):
    monkeypatch.setenv("FORCE_COLOR", "1")
    rendered = render_table(HEADERS, ROWS, ALIGN, width)
    assert "\x1b" not in rendered
    assert rendered == "\n".join(line.rstrip() for line in rendered.splitlines())


def test_a_table_without_rows_has_headers():
    assert render_table(["a", ""], [], "lr") == "a\n-  -"


@pytest.mark.parametrize(("rows", "align"), [([["1"]], "lr"), ([["1", "2", "3"]], "lr"), ([["1", "2"]], "l")])
def test_a_cell_without_a_column_is_an_error(rows, align):
    with pytest.raises(ValueError, match="a table of 2 headers"):
        render_table(["a", "b"], rows, align)


def test_a_markdown_table():
    assert markdown_table(["layer", "sparsity"], [["stem", "0.50"]], "lr").splitlines() == [
        "| layer   |   sparsity |",
        "|---------|------------|",
        "| stem    |       0.50 |",
    ]
