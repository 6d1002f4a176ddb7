"""The runners of `examples/lite_runner`, compiled for this machine, and a stand-in for an Android device."""

import importlib.util
import json
import os
import subprocess
from pathlib import Path

import pytest

from .compiling import SOURCES, call_main, compile_runner, lite_library
from .stand_in import StandIn, script


@pytest.fixture(scope="session")
def lite_runner(tmp_path_factory):
    """The command that runs lite_runner with the library of the optimizer's wheel."""
    program = compile_runner(SOURCES / "lite_runner.cpp", tmp_path_factory.mktemp("lite_runner"))
    return call_main(lite_library(), program)


@pytest.fixture(scope="session")
def mnn_runner(tmp_path_factory):
    """The command that runs mnn_runner with the library of MNN's wheel."""
    installed = importlib.util.find_spec("_mnncengine")
    if installed is None:
        pytest.skip("MNN is not installed")
    folder = tmp_path_factory.mktemp("mnn_runner")
    program = compile_runner(SOURCES / "mnn_runner.cpp", folder, "-D_GLIBCXX_USE_CXX11_ABI=0")
    return call_main(installed.origin, program)


@pytest.fixture(scope="session")
def program(lite_runner, tmp_path_factory):
    """An executable file that starts the real runner, and a library beside it."""
    folder = tmp_path_factory.mktemp("program")
    words = ", ".join(json.dumps(word) for word in lite_runner)
    source = folder / "main.cpp"
    source.write_text(
        "#include <unistd.h>\n#include <vector>\nint main(int count, char** given) {\n"
        f"  std::vector<const char*> words = {{{words}}};\n"
        "  words.insert(words.end(), given + 1, given + count + 1);\n"
        "  return execv(words[0], const_cast<char**>(words.data()));\n}\n"
    )
    subprocess.run(["g++", "-std=c++11", source, "-o", folder / "lite_runner"], check=True)
    (folder / "libpaddle_light_api_shared.so").write_bytes(b"library")
    return folder / "lite_runner"


@pytest.fixture
def adb(tmp_path, monkeypatch):
    path = tmp_path / "path"
    path.mkdir()
    stand_in = Path(__file__).with_name("adb_stand_in.py")
    script(path / "adb", f"import runpy; runpy.run_path({str(stand_in)!r}, run_name='__main__')")
    monkeypatch.setenv("PATH", f"{path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("STAND_IN", str(tmp_path / "device"))
    monkeypatch.delenv("ANDROID_SERIAL", raising=False)
    (tmp_path / "device").mkdir()
    return StandIn(tmp_path / "device")
