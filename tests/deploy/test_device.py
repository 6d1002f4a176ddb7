"""Timing on a device: the real runner through a command, and through a stand-in for `adb`."""

import contextlib
import json
import os
import platform
import re
import shutil
import signal
import stat
import struct
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from helpers import Pointwise
from paddle.static import InputSpec

from paddle_sparse_cb import InputError, PipelineError
from paddle_sparse_cb.deploy.device import Adb, Runner, TimingOptions
from paddle_sparse_cb.deploy.device.adb import choose_device, read_abi
from paddle_sparse_cb.deploy.device.timing import parse_output
from paddle_sparse_cb.deploy.export import export
from paddle_sparse_cb.deploy.lite.optimizer import find_optimizer, optimize

from .stand_in import EMULATOR, GETPROP, PIXEL, script

pytestmark = pytest.mark.xdist_group("device")  # the runners are compiled once
SHAPE = [1, 1, 8, 8]
OPTIONS = TimingOptions(inputs=[SHAPE], warmup=1, repeats=5, rounds=1, timeout=60)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A model for this processor, under two names that a shell would misread."""
    folder = tmp_path_factory.mktemp("device")
    prefix = export(Pointwise(), folder / "model", [InputSpec(SHAPE, "float32", "x")])
    options = {"valid_targets": "x86"}
    first = optimize(prefix, folder / "model.nb", sparse=False, optimizer=find_optimizer(), options=options)
    named = [folder / "a $(touch pwned); 'b'.nb", folder / "-rf *.nb"]
    for path in named:
        shutil.copy(first, path)
    return named


def test_files_are_run_alternately_and_summarized(lite_runner, files):
    timings = Runner(lite_runner).time(files, replace(OPTIONS, rounds=2))
    assert [timing.file for timing in timings] == files
    for timing in timings:
        low, median, high = np.percentile(timing.runs, (25, 50, 75))
        assert len(timing.runs) == 10
        assert (timing.ms, timing.spread) == (median, pytest.approx((high - low) / median))
        assert (timing.runtime, timing.version, timing.abi) == ("Paddle-Lite", "v2.13-rc", platform.machine())
        assert (timing.threads, timing.cluster) == (1, "any")
        assert len(timing.cpus) >= 1
        assert timing.outputs[0] > 0
        assert json.loads(json.dumps(timing.to_dict()))["ms"] == timing.ms
    assert timings[0].outputs == timings[1].outputs


def test_a_mnn_file_needs_no_shapes(mnn_runner, files, tmp_path):
    from paddle_sparse_cb.deploy.mnn.converter import convert
    from paddle_sparse_cb.deploy.onnx import export_onnx

    onnx = export_onnx(files[0].with_name("model"), tmp_path / "model.onnx")
    (timing,) = Runner(mnn_runner).time([convert(onnx, tmp_path / "model.mnn", sparse=False)], OPTIONS)
    assert (timing.runtime, len(timing.runs)) == ("MNN", 5)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import sys; sys.exit('no room left')", "the runner failed with exit code 1: no room left"),
        ("import os; os.kill(os.getpid(), 4)", "the runner was ended by SIGILL"),
        ("import sys; sys.exit(139)", "the runner was ended by SIGSEGV"),
        ("print('hello')", "the runner printed something else than its results: "),
        ("print('{' * 100000)", "the runner printed something else than its results: "),
        ("import time; time.sleep(60)", "no result after 0.5 seconds"),
    ],
)
def test_a_runner_that_fails_is_one_line_that_names_it_and_the_file(code, message, files, tmp_path):
    command = [script(tmp_path / "runner", code)]
    with pytest.raises(PipelineError) as error:
        Runner(command).time(files, TimingOptions([SHAPE], repeats=1, timeout=0.5 if "sleep" in code else 60))
    assert message in str(error.value)
    assert str(tmp_path / "runner") in str(error.value)
    assert str(files[0]) in str(error.value)
    assert "\n" not in str(error.value)


def test_an_illegal_instruction_in_an_fp16_file_is_explained(files, tmp_path):
    prefix = files[0].with_name("model")
    fp16 = optimize(prefix, tmp_path / "fp16.nb", sparse=False, options={"enable_fp16": "true"})
    command = [script(tmp_path / "runner", "import os; os.kill(os.getpid(), 4)")]
    with pytest.raises(PipelineError, match="SIGILL; it is an FP16 file, and the processor may lack FP16 arithmetic"):
        Runner(command).time([fp16], OPTIONS)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("", "runner must be a command"),
        ("ssh 'pi", "No closing quotation"),
        ("/no/such/runner", "runner '/no/such/runner' cannot be started: No such file"),
    ],
)
def test_a_command_that_cannot_be_started_is_refused(command, message, files):
    with pytest.raises(InputError, match=re.escape(message)):
        Runner(command).time(files, OPTIONS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threads": 0}, "threads must be a whole number of at least 1, got 0"),
        ({"cluster": "medium"}, "cluster must be one of any, big, little, got 'medium'"),
        ({"timeout": float("nan")}, "timeout must be a number of seconds"),
        ({"inputs": [[1, 3, -1, 8]]}, "a dimension of an input must be a whole number of at least 1, got -1"),
        ({"inputs": [["1; reboot"]]}, "a dimension of an input must be a whole number"),
        ({"inputs": [[1 << 20, 1 << 20]]}, "an input cannot have the shape"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        TimingOptions(**options)


def test_files_are_checked_before_anything_runs(tmp_path):
    for names, message in (([], "no files"), (["none.nb"], "none.nb: no such file"), (["x.onnx"], "only .nb and .mnn")):
        with pytest.raises(InputError, match=message):
            Runner("/no/such/runner").time([tmp_path / name for name in names], OPTIONS)


RESULT = {
    "runtime": "Paddle-Lite",
    "version": "v2.13",
    "machine": "aarch64",
    "device": "",
    "cpus": [7],
    "temperature": [None, 40.5],
    "outputs": [{"shape": [1], "mean_magnitude": None}],
}


@pytest.mark.parametrize(
    ("changes", "run"),
    [
        ({"temperature": [1]}, 2.0),
        ({"temperature": ["warm", None]}, 2.0),
        ({"temperature": [float("inf"), None]}, 2.0),
        ({"cpus": 7}, 2.0),
        ({"cpus": ["7"]}, 2.0),
        ({"version": None}, 2.0),
        ({"outputs": [1]}, 2.0),
        ({}, -2.0),
        ({}, float("nan")),
        ({}, "fast"),
    ],
)
def test_results_that_are_not_what_they_must_be_are_refused(changes, run):
    def lines(result, run):
        return "\n".join(["noise", json.dumps({"run": 0, "ms": run}), json.dumps(result)])

    assert parse_output("x", lines(RESULT, 2.0), 1).runs == (2.0,)
    with pytest.raises(PipelineError, match="x: the runner printed something else than its results"):
        parse_output("x", lines({**RESULT, **changes}, run), 1)
    with pytest.raises(PipelineError, match="1 runs of 2"):
        parse_output("x", lines(RESULT, 2.0), 2)


# -- adb


@pytest.mark.parametrize("old", [False, True])
def test_files_are_copied_timed_and_removed(old, adb, program, files):
    if old:
        adb.write(old="")
    timings = Adb(program).time(files, OPTIONS)
    assert [timing.file for timing in timings] == files
    assert {len(timing.runs) for timing in timings} == {5}
    assert {(timing.device, timing.abi) for timing in timings} == {("Google Pixel 6", "x86_64")}
    assert list(adb.temporary.iterdir()) == []
    pushed = [Path(call[3]).name for call in adb.calls if "push" in call]
    assert pushed == ["lite_runner", "libpaddle_light_api_shared.so", *(file.name for file in files)]
    assert all(call == ["devices", "-l"] or call[:2] == ["-s", "emulator-5554"] for call in adb.calls)


def test_no_text_from_outside_reaches_the_shell_of_the_device(adb, program, files):
    device = Adb(program)
    for _ in range(2):
        device.time(files, OPTIONS)
    folder = r"/data/local/tmp/paddle_sparse_cb\.[0-9a-f]{16}"
    run = r"\./runner [01]\.nb --input 1x1x8x8 --warmup 1 --repeats 5 --threads 1 --cluster any 2>errors"
    start = rf"cd {folder} && LD_LIBRARY_PATH=\. {run}"
    allowed = rf"(getprop|mkdir {folder}|chmod 755 {folder}/runner|{start}); echo exit code \$\?"
    commands = [call[3] for call in adb.calls if "shell" in call]
    assert all(re.fullmatch(rf"{allowed}|rm -rf {folder}", command) for command in commands)
    assert len({re.search(folder, command)[0] for command in commands[1:]}) == 2  # one for each call of `time`


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (r"push .*lite_runner", "adb push failed: adb: error: closed"),
        (r"mkdir", "adb shell failed: adb: error: closed"),
        (r"push .*[.]nb", "adb push failed: adb: error: closed"),
        (r"runner 1[.]nb", "adb shell failed: adb: error: closed"),
    ],
)
def test_the_folder_is_removed_after_a_failure(pattern, message, adb, program, files):
    device = Adb(program)
    adb.write(fail=pattern)
    with pytest.raises(PipelineError, match=re.escape(message)):
        device.time(files, OPTIONS)
    assert adb.calls[-1][3].startswith("rm -rf /data/local/tmp/paddle_sparse_cb.")
    assert list(adb.temporary.iterdir()) == []


def test_a_folder_that_cannot_be_removed_is_named(adb, program, files, capsys):
    adb.write(fail="rm -rf")
    assert len(Adb(program).time(files, OPTIONS)) == 2
    (left,) = adb.temporary.iterdir()
    assert capsys.readouterr().err == (
        f"warning: /data/local/tmp/{left.name} could not be removed from device emulator-5554\n"
    )


def test_a_runner_that_crashes_on_the_device_is_one_line(adb, files, tmp_path):
    (tmp_path / "crash.cpp").write_text("#include <csignal>\n#include <cstdio>\nint main() { std::raise(SIGILL); }\n")
    subprocess.run(["g++", tmp_path / "crash.cpp", "-o", tmp_path / "lite_runner"], check=True)
    with pytest.raises(PipelineError, match="lite_runner on device emulator-5554, .*: the runner was ended by SIGILL"):
        Adb(tmp_path / "lite_runner").time(files, OPTIONS)
    assert list(adb.temporary.iterdir()) == []


def test_what_the_runner_says_about_a_failure_is_shown(adb, program, files):
    with pytest.raises(PipelineError, match="failed with exit code 2: 0.nb has 1 inputs: give --input for each"):
        Adb(program).time(files, TimingOptions())


INTERRUPTED = """
import sys
from pathlib import Path
from paddle_sparse_cb.deploy.device import Adb, TimingOptions
program, file = map(Path, sys.argv[1:])
Adb(program).time([file], TimingOptions(inputs=[[1, 1, 8, 8]], repeats=1000000, warmup=0))
"""


@pytest.mark.slow
def test_the_folder_is_removed_after_an_interruption(adb, program, files):
    command = [sys.executable, "-c", INTERRUPTED, program, files[0]]
    processes = [subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True) for _ in range(2)]
    deadline = time.monotonic() + 60
    while len(list(adb.temporary.glob("*/errors"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    on_the_device = [one for process in processes for one in psutil.Process(process.pid).children(recursive=True)]
    try:
        for process, number in zip(processes, (signal.SIGINT, signal.SIGTERM)):
            assert process.poll() is None
            os.killpg(process.pid, number)  # to the whole group, as a terminal does
            assert process.wait(60) != 0
    finally:
        for one in on_the_device:  # where a run continues; here it would take a minute
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
    assert sum(call[-1].startswith("rm -rf") for call in adb.calls) == 2
    assert list(adb.temporary.iterdir()) == []


def test_a_device_that_does_not_answer_is_given_up(adb, program, files):
    device = Adb(program)
    adb.write(hang="runner 0[.]nb")
    with pytest.raises(PipelineError, match="adb shell did not end in 0.3 seconds"):
        device.time(files, TimingOptions([SHAPE], timeout=0.3))
    assert list(adb.temporary.iterdir()) == []


def test_without_adb_the_error_says_where_it_comes_from(program, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(InputError, match="adb cannot be started: No such file.* part of Android's platform-tools"):
        Adb(program)


@pytest.mark.parametrize(
    ("lines", "serial", "message"),
    [
        ([], None, "no Android device is connected"),
        (
            [PIXEL, EMULATOR],
            None,
            r"several .*: 1A051FDF6007RA \(Pixel_6\), emulator-5554 \(sdk_gphone64\); choose one",
        ),
        ([PIXEL], "R58M", "Android device R58M is not connected; connected: 1A051FDF6007RA"),
        ([], "R58M", "Android device R58M is not connected; connected: none"),
        (["R58M   unauthorized usb:1-3 transport_id:4"], None, "R58M: unauthorized: confirm 'Allow USB debugging"),
        (["R58M   offline transport_id:4"], "R58M", "R58M: offline: connect it again"),
        (
            [
                "R58M   no permissions (missing udev rules? user is in the plugdev group); see "
                "[http://developer.android.com/tools/device.html] usb:1-3 transport_id:4"
            ],
            None,
            "R58M: no permissions: this user may not access it over USB; a udev rule allows it",
        ),
        (["R58M   recovery usb:1-3"], None, "R58M: recovery: connect it again"),
    ],
)
def test_a_device_that_cannot_be_chosen_is_refused(lines, serial, message):
    with pytest.raises(InputError, match=message):
        choose_device("\n".join(["List of devices attached", *lines, ""]), serial)


def test_the_device_is_chosen_by_serial_number_variable_or_being_the_only_one(adb, program, monkeypatch):
    listing = "\n".join(["List of devices attached", PIXEL, EMULATOR, "R58M  unauthorized"])
    assert choose_device(listing, "1A051FDF6007RA") == "1A051FDF6007RA"
    assert choose_device(f"List of devices attached\nR58M\tunauthorized\n{PIXEL}", None) == "1A051FDF6007RA"
    adb.write(devices=listing)
    monkeypatch.setenv("ANDROID_SERIAL", "emulator-5554")
    assert Adb(program).serial == "emulator-5554"


def test_a_program_for_another_processor_is_refused(adb, program, tmp_path):
    adb.write(getprop=GETPROP.replace("x86_64,arm64-v8a", "arm64-v8a,armeabi-v7a,armeabi"))
    with pytest.raises(
        InputError, match="lite_runner is built for x86_64, and device emulator-5554 runs arm64-v8a,arme"
    ):
        Adb(program)
    assert [call[-1] for call in adb.calls if "shell" in call] == ["getprop; echo exit code $?"]


def test_only_programs_for_android_are_copied(tmp_path):
    header = b"\x7fELF\2\1\1" + bytes(9) + struct.pack("<HH", 3, 183)
    (tmp_path / "runner").write_bytes(header)
    assert read_abi(tmp_path / "runner") == "arm64-v8a"
    for content, message in (
        (b"#!/bin/sh", "not a program for Android"),
        (header[:18], "not a program for Android"),
        (header[:18] + struct.pack("<H", 243), "a program for processor 243"),
    ):
        (tmp_path / "runner").write_bytes(content)
        with pytest.raises(InputError, match=message):
            read_abi(tmp_path / "runner")
    with pytest.raises(InputError, match="none: No such file"):
        read_abi(tmp_path / "none")


def test_a_library_with_a_strange_name_is_not_copied(adb, program, files, tmp_path):
    shutil.copy(program, tmp_path / "lite_runner")
    (tmp_path / "lib$(reboot).so").write_bytes(b"")
    with pytest.raises(InputError, match="a library with this name cannot be copied"):
        Adb(tmp_path / "lite_runner").time(files, OPTIONS)
    assert stat.S_ISDIR(adb.temporary.stat().st_mode)
    assert list(adb.temporary.iterdir()) == []


def test_the_example_of_the_documentation_runs(adb, program, files, tmp_path, monkeypatch, capsys):
    text = (Path(__file__).parents[2] / "docs" / "deploy.md").read_text()
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "deploy.device" in block)
    for kind in ("dense", "sparse"):
        (tmp_path / "output").mkdir(exist_ok=True)
        shutil.copy(files[0], tmp_path / "output" / f"model_{kind}.nb")
    shutil.copytree(program.parent, tmp_path / "build")
    script(tmp_path / "path" / "ssh", f"import os, sys; os.execv({str(program)!r}, ['lite_runner', *sys.argv[3:]])")
    monkeypatch.chdir(tmp_path)
    exec(code.replace("[[1, 3, 320, 320], [1, 2]]", "[[1, 1, 8, 8]]"), {})
    assert re.fullmatch(r": [\d.]+ -> [\d.]+ ms, [+-]\d+%\n", capsys.readouterr().out)
