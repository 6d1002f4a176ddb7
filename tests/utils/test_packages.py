import subprocess
from dataclasses import replace

import pytest
from helpers import same_on_paddle_3

from paddle_sparse_cb.errors import PipelineError
from paddle_sparse_cb.utils import packages
from paddle_sparse_cb.utils.packages import DebianPackage, Wheel, fetch_debian_package, fetch_wheel

pytestmark = same_on_paddle_3

FASHION = DebianPackage(
    "dataset-fashion-mnist",
    "0.0~git20200523.55506a9-1",
    "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
    31,
)
SMALL = Wheel("six", "1.16.0", "8abb2f1d86890a2dfb989f9a77cfcfd3e47c2a354b01111771326f8aa26e0254", 1)


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("PADDLE_SPARSE_CACHE", str(tmp_path))
    return tmp_path


def test_a_wheel_is_downloaded_once_and_unpacked(monkeypatch):
    folder = fetch_wheel(SMALL)
    assert (folder / "six.py").is_file()
    monkeypatch.setattr(packages.subprocess, "run", lambda *arguments: pytest.fail("downloaded twice"))
    assert fetch_wheel(SMALL) == folder


def test_a_wheel_with_another_digest_is_refused_and_leaves_nothing_behind(cache):
    with pytest.raises(PipelineError, match="cannot download the package six==1.16.0: ERROR") as error:
        fetch_wheel(Wheel("six", "1.16.0", "0" * 64, 1))
    assert "\n" not in str(error.value)
    assert not list((cache / "packages").iterdir())


def test_without_pip_the_error_names_pip(monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda *args, **kw: subprocess.CompletedProcess([], 1, "", "No module pip"))
    with pytest.raises(PipelineError, match="pip exited with 1"):
        fetch_wheel(SMALL)


def test_a_debian_package_with_another_digest_is_refused_and_leaves_nothing_behind(cache):
    with pytest.raises(PipelineError, match=r"dataset-fashion-mnist=\S+: its SHA-256 is 39e172fe"):
        fetch_debian_package(replace(FASHION, sha256="0" * 64))
    assert not list((cache / "packages").iterdir())


def test_a_missing_debian_package_is_an_error_of_one_line(cache):
    with pytest.raises(PipelineError, match="package dataset-fashion-mnist=0: E: Version '0'") as error:
        fetch_debian_package(replace(FASHION, version="0"))
    assert "\n" not in str(error.value)


def test_without_apt_the_error_names_apt_get(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PipelineError, match="this system has no apt-get"):
        fetch_debian_package(FASHION)
