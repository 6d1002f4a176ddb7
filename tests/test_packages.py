import subprocess

import pytest

from paddle_sparse_cb import packages
from paddle_sparse_cb.errors import StepError
from paddle_sparse_cb.packages import Wheel, unpack

SMALL = Wheel("six", "1.16.0", "8abb2f1d86890a2dfb989f9a77cfcfd3e47c2a354b01111771326f8aa26e0254", 1)


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("PADDLE_SPARSE_CACHE", str(tmp_path))
    return tmp_path


def test_a_wheel_is_fetched_once_and_unpacked(monkeypatch):
    folder = unpack(SMALL)
    assert (folder / "six.py").is_file()
    monkeypatch.setattr(packages, "_install", lambda *arguments: pytest.fail("fetched twice"))
    assert unpack(SMALL) == folder


def test_another_digest_is_refused_and_nothing_is_kept(cache):
    with pytest.raises(StepError, match="cannot fetch the package six==1.16.0: ERROR") as error:
        unpack(Wheel("six", "1.16.0", "0" * 64, 1))
    assert "\n" not in str(error.value)
    assert not list((cache / "packages").iterdir())


def test_without_pip_the_error_says_so(monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda *args, **kw: subprocess.CompletedProcess([], 1, "", "No module pip"))
    with pytest.raises(StepError, match="pip ended with 1"):
        unpack(SMALL)
