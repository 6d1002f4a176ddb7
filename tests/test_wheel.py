"""The wheel that is built from the sdist works outside of the checkout: it has the recipes, and nothing is missing."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from helpers import CORE_ONLY

ROOT = Path(__file__).parent.parent
RECIPES = sorted(path.stem for path in (ROOT / "recipes").glob("*.yml"))


def run(*command, cwd, **environment):
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    """The sdist of the files that git would commit."""
    folder = tmp_path_factory.mktemp("sdist")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / "checkout" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / "checkout" / name)
    code = "from setuptools import build_meta; build_meta.build_sdist('../dist')"
    run("-c", code, cwd=folder / "checkout")
    [made] = (folder / "dist").iterdir()
    return made


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory):
    """The wheel, made without network from the sdist."""
    folder = tmp_path_factory.mktemp("wheel")
    run("-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", sdist, cwd=folder)
    [made] = folder.glob("*.whl")
    return made


@pytest.mark.slow
def test_the_sdist_has_all_files_of_the_checkout(sdist):
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    checkout = sdist.parent.parent / "checkout"
    files = {path.relative_to(checkout).as_posix() for path in checkout.rglob("*") if path.is_file()}
    missing = {name for name in files - names if not name.startswith("paddle_sparse_cb.egg-info/")}
    assert {name for name in missing if not Path(name).name.startswith(".git")} == set()


@pytest.mark.slow
def test_the_wheel_has_all_files_of_the_package_recipes_and_its_metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = Parser().parsestr(archive.read(next(name for name in names if name.endswith("/METADATA"))).decode())
    package = ROOT / "paddle_sparse_cb"
    files = [path for path in package.rglob("*") if path.is_file() and path.parent.name != "__pycache__"]
    expected = {path.relative_to(ROOT).as_posix() for path in files}
    expected |= {f"paddle_sparse_cb/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "recipes").rglob("*.yml")}
    assert expected <= names
    assert metadata["Requires-Python"] == "<3.12,>=3.9"
    assert metadata["Author"]
    assert {"cpu", "detection", "deploy", "mnn", "bench", "tensorboard"} <= set(metadata.get_all("Provides-Extra"))


@pytest.mark.slow
def test_recipes_run_by_name_from_an_installed_package(wheel, tmp_path):
    site = tmp_path / "site"
    run("-m", "pip", "install", "--no-deps", "--no-index", "--target", site, wheel, cwd=tmp_path)
    listed = run("-m", "paddle_sparse_cb", "list", cwd=tmp_path, PYTHONPATH=str(site))
    assert [line.split()[0] for line in listed.splitlines()[2:]] == RECIPES
    where = run("-c", "import paddle_sparse_cb; print(paddle_sparse_cb.__file__)", cwd=tmp_path, PYTHONPATH=str(site))
    assert Path(where.strip()).is_relative_to(site)
    assert {path.name for path in tmp_path.iterdir()} == {"site"}
    if CORE_ONLY:
        return
    plan = run("-m", "paddle_sparse_cb", "plan", "picodet_s_416_trees_sparse75", cwd=tmp_path, PYTHONPATH=str(site))
    assert "40 of 98 weights are pruned" in plan
