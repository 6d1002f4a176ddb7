"""Commands, YAML and JSON in the pages are what the programs accept."""

import configparser
import contextlib
import io
import json
import re
import shlex

import pytest
from doc_pages import DOCS, README, README_CN, ROOT, blocks, name
from helpers import CORE_ONLY

from paddle_sparse_cb import InputError
from paddle_sparse_cb.cli import command_parser

PAGES = [README, README_CN, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted(DOCS.rglob("*.md"))]
BLOCKS = [block for page in PAGES for block in blocks(page)]
RUN = [block for block in BLOCKS if not block.not_run]
LANGUAGES = {"python", "bash", "console", "yaml", "json", "text"}
# Programs of others, which are not ours to check.
OTHERS = {"tensorboard", "visualdl", ".venv/bin/pre-commit"}
# Files of the reader, in place of which a recipe of the same kind is read.
READERS_FILES = {
    "photos.yml": "picodet_s_416_trees",
    "photos_sparse75.yml": "picodet_s_416_trees_sparse75",
    "my_detector.yml": "picodet_s_416_trees",
    "RECIPE": "picodet_s_416_trees_sparse75",
    "RECIPE...": "picodet_s_416_trees_sparse75",
}
BASE = ROOT / "recipes" / "picodet_s_416_trees_sparse75.yml"


def of(*languages):
    return [pytest.param(block, id=str(block)) for block in RUN if block.language in languages]


def commands(block):
    """The commands of a block as lists of words; in a `console` block they follow `$`."""
    lines = block.code.replace("\\\n", " ").splitlines()
    if block.language == "console":
        lines = [line[2:] for line in lines if line.startswith("$ ")]
    for line in lines:
        words = shlex.split(line, comments=True)
        while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):  # a variable of the environment
            del words[0]
        if words:
            yield words


def check_make(words):
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.M)[1].split()
    assert {word for word in words if "=" not in word} <= set(targets), words


def check_pip(words):
    assert words[0] == "install", words
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    for option, value in zip(words, words[1:]):
        assert option != "-c" or (ROOT / value).is_file(), value
    for extras in re.findall(r"\[([\w,]+)\]", " ".join(words)):
        assert set(extras.split(",")) <= set(setup["options.extras_require"]), extras


def check_python(words):
    if words[:2] == ["-m", "paddle.distributed.launch"]:
        words = words[next(index for index, word in enumerate(words) if word.endswith(".py")) :]
    if words[0] == "recipes/train.py":
        check_paddle_sparse(["train", *words[1:]])
    elif words[0] == "-m":
        assert words[1] in ("pytest", "paddle_sparse_cb"), words
    else:
        source = (ROOT / words[0]).read_text(encoding="utf-8")
        assert [flag for flag in words if flag.startswith("--") and f'"{flag}"' not in source] == [], words


def parse(words):
    """Returns the parsed arguments; None for a flag after which the program ends."""
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        try:
            return command_parser().parse_args(words)
        except SystemExit as end:
            code = end.code
    assert code == 0, f"{words}: {errors.getvalue()}"
    return None


def check_paddle_sparse(words):
    options = parse(words)
    if options is None:  # such as --version
        return
    recipe = getattr(options, "recipe", None) or getattr(options, "config", None) or getattr(options, "model", None)
    if recipe and not CORE_ONLY and not recipe.startswith(("configs/", "output/", "FOLDER")):
        read(READERS_FILES.get(recipe, recipe), getattr(options, "slim_config", None), getattr(options, "opt", []))


def read(recipe, slim_config=None, options=()):
    """Reads a recipe as the command does; the data need not be there."""
    from paddle_sparse_cb.recipe.catalogue import find_recipe
    from paddle_sparse_cb.recipe.schema import read_recipe

    return read_recipe(find_recipe(recipe), slim_config, options)


CHECKS = {"make": check_make, "pip": check_pip, "python": check_python, "paddle-sparse": check_paddle_sparse}


def check(words):
    program = words[0].removeprefix(".venv/bin/")
    if words[0] not in OTHERS:
        assert program in CHECKS, f"{words}: an unknown program; check it in {__name__}, or mark the block"
        CHECKS[program](words[1:])


def test_every_block_names_a_language_that_the_tests_know():
    unknown = [f"{block}: {block.language!r}" for block in BLOCKS if block.language not in LANGUAGES]
    assert [name for name, block in zip(unknown, BLOCKS) if not block.not_run] == []
    assert len(BLOCKS) > 50


@pytest.mark.parametrize("block", of("bash", "console"))
def test_commands_are_accepted(block, monkeypatch):
    monkeypatch.chdir(ROOT)
    found = list(commands(block))
    assert found, "a block without a command"
    for words in found:
        check(words)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_within_the_text_are_accepted(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for line in re.findall(r"`(paddle-sparse\s[^`]+)`", text):
        words = shlex.split(line)
        if words[1] != "COMMAND" and words[-1] != "...":
            check(words if len(words) > 2 else [*words, "--help"])  # a command's name alone


@pytest.mark.parametrize(
    "line",
    [
        "paddle-sparse train picodet_s_416_trees_sparse75 --resum3",
        "paddle-sparse tain RECIPE",
        "paddle-sparse train picodet_s_416_treez",
        "paddle-sparse plan RECIPE -o Sparsity.ratio=2",
        "python -m paddle.distributed.launch --nproc_per_node 2 recipes/train.py -c nothing.yml",
        "python tools/published_table.py --nothing",
        "make nothing",
        "pip install '.[nothing]'",
        "nothing",
    ],
)
@pytest.mark.skipif(CORE_ONLY, reason="recipes need PaddleDetection")
def test_wrong_commands_are_found(line, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises((AssertionError, InputError, OSError)):
        check(shlex.split(line))


@pytest.mark.skipif(CORE_ONLY, reason="recipes need PaddleDetection")
@pytest.mark.parametrize("block", of("yaml"))
def test_yaml_is_a_part_of_a_recipe(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dense = BASE.with_name("picodet_s_416_trees.yml")
    (tmp_path / "my_detector.yml").write_text(f"_BASE_: [{dense}]\n")
    start = "" if "pretrain_weights" in block.code else f"pretrain_weights: recipe:{dense}\n"
    (tmp_path / "recipe.yml").write_text(f"_BASE_: [{BASE}]\n{start}{block.code}")
    read("recipe.yml")


@pytest.mark.parametrize("block", of("json"))
def test_json_is_valid(block):
    json.loads(block.code)
