"""Rules of the code base that no linter checks: private names, sizes of files, descriptions of rooms, foreign paths.

`lint-imports` checks which room may import which.
"""

import ast
import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "paddle_sparse_cb"
MODULES = sorted(PACKAGE.rglob("*.py"))
CALLERS = sorted([*(ROOT / "tests").rglob("*.py"), *(ROOT / "tools").glob("*.py")])
ROOMS = sorted(path.parent for path in PACKAGE.rglob("__init__.py") if path.parent != PACKAGE)
MAX_LINES = 300
# Methods of PaddleSlim's pruner that GMPPruner overrides and that tests call on PaddleSlim's own.
OVERRIDDEN = {"_apply_masks", "_prepare_training_hyper_parameters", "_should_prune_layer", "_update_masks"}


def relative(path):
    return str(path.relative_to(ROOT))


def parse(path):
    return ast.parse(path.read_text(), str(path))


def is_private(name):
    return name.startswith("_") and not name.startswith("__")


def private_functions():
    """The names of all private functions and methods of the package."""
    nodes = (node for path in MODULES for node in ast.walk(parse(path)))
    return {
        node.name
        for node in nodes
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and is_private(node.name)
    } - OVERRIDDEN


def package_names(tree):
    """The names that a file binds to the package, its modules, or what it imports from them."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == PACKAGE.name:
            names.update(alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.Import):
            names.update(
                (alias.asname or alias.name).partition(".")[0]
                for alias in node.names
                if alias.name.partition(".")[0] == PACKAGE.name
            )
    return names


def private_uses(path, private):
    """Yields the lines on which a file uses a private function of the package."""
    tree = parse(path)
    ours = package_names(tree)
    defined = {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == PACKAGE.name:
            names = [alias.name for alias in node.names if is_private(alias.name)]
        elif isinstance(node, ast.Attribute) and is_private(node.attr):
            root = node.value
            while isinstance(root, ast.Attribute):
                root = root.value
            if node.attr in private - defined or (
                isinstance(root, ast.Name)
                and root.id in ours
                and not isinstance(node.value, ast.Call)
                and node.attr not in OVERRIDDEN
            ):
                names = [node.attr]
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("setattr", "delattr"):
            target = next((argument for argument in node.args if isinstance(argument, ast.Constant)), None)
            if target is not None and str(target.value).rpartition(".")[2] in private - defined:
                names = [str(target.value)]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):  # programs for other processes
            names = [name for name in re.findall(r"\b(?:\w+\.|import )(_[a-z]\w*)", node.value) if name in private]
        for name in names:
            yield f"{relative(path)}:{getattr(node, 'lineno', 0)}: {name}"


def test_no_test_or_tool_uses_a_private_function_of_the_package():
    private = private_functions()
    assert len(private) > 50
    callers = [path for path in CALLERS if path != Path(__file__)]  # its examples of violations
    assert [use for path in callers for use in private_uses(path, private)] == []


@pytest.mark.parametrize(
    "code",
    [
        "from paddle_sparse_cb.detection.config import _safe_loader",
        "from paddle_sparse_cb.detection import config\nconfig._safe_loader()",
        "import paddle_sparse_cb.detection.config as c\nc._safe_loader()",
        "from paddle_sparse_cb.detection import config\nmonkeypatch.setattr(config, '_safe_loader', 0)",
        "CODE = 'from paddle_sparse_cb.detection import config; config._safe_loader()'",
    ],
)
def test_uses_of_private_functions_are_found(code, tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    path = tmp_path / "test_code.py"
    path.write_text(code)
    assert len(list(private_uses(path, {"_safe_loader"}))) >= 1


def test_no_file_of_the_package_is_longer_than_300_lines():
    assert {
        relative(path): lines for path in MODULES if (lines := len(path.read_text().splitlines())) > MAX_LINES
    } == {}


@pytest.mark.parametrize("room", ROOMS, ids=relative)
def test_every_room_says_what_it_is_for_what_it_imports_and_where_new_things_go(room):
    description = ast.get_docstring(parse(room / "__init__.py"))
    assert description
    assert len([line for line in description.splitlines() if line.strip()]) >= 3


def test_no_module_imports_from_the_public_interface():
    """`import-linter` cannot see through the names that `paddle_sparse_cb/__init__.py` imports on demand."""
    for path in MODULES:
        depth = len(path.relative_to(PACKAGE).parts)  # the number of dots that lead to the package itself
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.ImportFrom) and path != PACKAGE / "__init__.py":
                public = (node.level == 0 and node.module == PACKAGE.name) or (node.level == depth and not node.module)
                rooms = {child.stem for child in PACKAGE.iterdir()}
                assert not public or {alias.name for alias in node.names} <= rooms, f"{relative(path)}:{node.lineno}"


def test_no_file_names_paths_or_hosts_of_one_machine():
    # Written in parts, so that this file does not contain them.
    foreign = re.compile(
        "|".join(
            (
                "/roo" + "t/",
                r"(?<![\w.])/wo" + "rk/",
                "/opt/" + "wheels",
                "py" + r"pi\.org",
                "pythonhost" + "ed",
                r"deb\.deb" + r"ian\.org",
            )
        )
    )
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    found = []
    for name in filter(None, listed.split("\0")):
        try:
            lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
        except (UnicodeDecodeError, FileNotFoundError, IsADirectoryError):
            continue
        found += [f"{name}:{number}: {line.strip()}" for number, line in enumerate(lines, 1) if foreign.search(line)]
    assert found == []


@pytest.mark.xdist_group("one worker")
def test_tests_of_one_group_run_in_one_worker(request):
    """pytest-xdist 3.8.0 ignores groups with pytest 9.2, so that expensive fixtures would be made several times."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        pytest.skip("the tests do not run in parallel")
    assert request.node.nodeid.endswith("@one worker")
