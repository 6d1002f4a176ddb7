"""Times files on an Android device through `adb`."""

from __future__ import annotations

import os
import re
import secrets
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ...errors import InputError, PipelineError
from .timing import (
    DeviceTiming,
    Series,
    TimingOptions,
    check_files,
    describe_failure,
    parse_output,
    time_alternately,
)

_TEMPORARY = "/data/local/tmp"  # where a user of `adb` may run programs
_SHORT, _LONG = 30.0, 600.0  # seconds for a question to the device, and for copying a file
_EXIT_CODE = "exit code "  # older versions of `adb` do not pass on that of the device's shell
# The machine field of an ELF file, and Android's name of it.
_ABIS = {183: "arm64-v8a", 40: "armeabi-v7a", 62: "x86_64", 3: "x86"}
_DEVICE = re.compile(
    r"(?P<serial>\S+)\s+(?P<state>device|no permissions|unauthorized|authorizing|offline|connecting|\w+)\b(?P<more>.*)"
)
_REMEDIES = {
    "unauthorized": "confirm 'Allow USB debugging?' on its screen",
    "authorizing": "confirm 'Allow USB debugging?' on its screen",
    "no permissions": "this user may not access it over USB; a udev rule allows it",
}


class Adb:
    """An Android device.

    Runner, libraries and files are copied to a new folder below `/data/local/tmp`, under names that this module makes.
    The folder is removed whatever happens, as long as the device can be reached.

    Args:
        program: the runner, built for the device. All `.so` files beside it are copied too.
        serial: the serial number of the device; None chooses `$ANDROID_SERIAL`, or the only one that is connected.

    Attributes:
        serial: the serial number.
        device: the device's manufacturer and model.
        abi: its instruction set, such as `arm64-v8a`.

    Raises:
        InputError: `adb` or the program is missing, the program is not built for the device, or no device can be
            chosen: there is none, there are several, or it does not allow the connection.
        PipelineError: `adb` failed.
    """

    def __init__(self, program: Path, serial: str | None = None) -> None:
        self.program, self.abi = program, read_abi(program)
        listing = _adb(["devices", "-l"])
        self.serial = choose_device(listing, serial or os.environ.get("ANDROID_SERIAL"))
        properties = dict(re.findall(r"^\[(.*?)\]: \[(.*)\]$", self._ask("getprop"), re.MULTILINE))
        supported = properties.get("ro.product.cpu.abilist") or properties.get("ro.product.cpu.abi", "")
        if self.abi not in supported.split(","):
            raise InputError(
                f"{program} is built for {self.abi}, and device {self.serial} runs {supported or 'an unknown ABI'}"
            )
        maker, model = (properties.get(f"ro.product.{name}", "") for name in ("manufacturer", "model"))
        self.device = model if model.lower().startswith(maker.lower()) else f"{maker} {model}"

    def time(self, files: Sequence[Path], options: TimingOptions) -> list[DeviceTiming]:
        """Times files, alternately.

        Args:
            files: `.nb` or `.mnn` files, as the runner takes them.
            options: how.

        Raises:
            InputError: a file is missing.
            PipelineError: `adb` or the runner failed, took too long, or printed something else.
        """
        check_files(files)
        libraries = sorted(self.program.absolute().parent.glob("*.so"))
        for library in libraries:
            if not re.fullmatch(r"\w[\w.+-]*", library.name, re.ASCII):
                raise InputError(f"{library}: a library with this name cannot be copied to a device")
        with _exit_on_termination(), self._folder() as folder:
            self._push(self.program, f"{folder}/runner")
            for library in libraries:
                self._push(library, f"{folder}/{library.name}")
            self._ask(f"chmod 755 {folder}/runner")
            models = {file: f"{index}{file.suffix}" for index, file in enumerate(files)}
            for file, name in models.items():
                self._push(file, f"{folder}/{name}")

            def run(file: Path) -> Series:
                return self._run(folder, file, models[file], options)

            return time_alternately(files, options, run, self.device, self.abi)

    @contextmanager
    def _folder(self) -> Iterator[str]:
        folder = f"{_TEMPORARY}/paddle_sparse_cb.{secrets.token_hex(8)}"
        try:
            self._ask(f"mkdir {folder}")
            yield folder
        finally:
            self._remove(folder)

    def _remove(self, folder: str) -> None:
        """Removes a folder on the device. The process is one that Ctrl-C does not reach; a failure is only printed."""
        command = ["adb", "-s", self.serial, "shell", f"rm -rf {folder}"]
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            failed = process.wait(_SHORT) != 0
        except subprocess.TimeoutExpired:
            process.kill()
            failed = True
        if failed:
            print(f"warning: {folder} could not be removed from device {self.serial}", file=sys.stderr)

    def _push(self, source: Path, target: str) -> None:
        _adb(["-s", self.serial, "push", str(source.absolute()), target], _LONG)

    def _run(self, folder: str, file: Path, name: str, options: TimingOptions) -> Series:
        where = f"{self.program.name} on device {self.serial}, {file}"
        command = f"cd {folder} && LD_LIBRARY_PATH=. ./runner {name} {' '.join(options.arguments(file))} 2>errors"
        output, code = self._shell(command, options.timeout)
        if code:
            raise describe_failure(where, file, code, self._shell(f"cat {folder}/errors")[0])
        return parse_output(where, output, options.repeats)

    def _ask(self, command: str) -> str:
        """Runs a command in the device's shell and returns its output.

        Raises:
            PipelineError: the command failed.
        """
        output, code = self._shell(command)
        if code:
            raise PipelineError(f"device {self.serial}: {command.split()[0]} failed: {_last_line(output)}")
        return output

    def _shell(self, command: str, timeout: float = _SHORT) -> tuple[str, int]:
        """Returns output and exit code of a command in the device's shell, which is given no text from outside."""
        output = _adb(["-s", self.serial, "shell", f"{command}; echo {_EXIT_CODE}$?"], timeout)
        text, _, code = output.replace("\r\n", "\n").rpartition(_EXIT_CODE)
        if not code.strip().isdecimal():
            raise PipelineError(f"device {self.serial}: the connection ended: {_last_line(output)}")
        return text, int(code)


def _adb(arguments: Sequence[str], timeout: float = _SHORT) -> str:
    """Runs `adb` and returns its standard output."""
    what = f"adb {arguments[2] if arguments[0] == '-s' else arguments[0]}"
    try:
        done = subprocess.run(
            ["adb", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
        )
    except OSError as error:
        raise InputError(f"adb cannot be started: {error.strerror}; it is part of Android's platform-tools") from None
    except subprocess.TimeoutExpired:
        raise PipelineError(f"{what} did not end in {timeout:g} seconds") from None
    if done.returncode:
        raise PipelineError(f"{what} failed: {_last_line(done.stderr) or _last_line(done.stdout)}")
    return done.stdout


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no output"


def choose_device(listing: str, serial: str | None) -> str:
    """Chooses a device from the output of `adb devices -l`.

    Args:
        listing: the output.
        serial: the serial number of the device; None chooses the only one that can be used.

    Raises:
        InputError: there is no such device, there are several, or it cannot be used.
    """
    lines = listing.partition("List of devices attached")[2].splitlines()
    devices = [match for match in map(_DEVICE.fullmatch, map(str.strip, lines)) if match]
    if serial is not None:
        known = ", ".join(device["serial"] for device in devices) or "none"
        devices = [device for device in devices if device["serial"] == serial]
        if not devices:
            raise InputError(f"Android device {serial} is not connected; connected: {known}")
    usable = [device for device in devices if device["state"] == "device"]
    if len(usable) > 1:
        models = (re.search(r"\bmodel:(\S+)", one["more"]) for one in usable)
        listed = (f"{one['serial']} ({model[1]})" if model else one["serial"] for one, model in zip(usable, models))
        raise InputError(f"several Android devices are connected: {', '.join(listed)}; choose one by its serial number")
    if usable:
        return usable[0]["serial"]
    if not devices:
        raise InputError("no Android device is connected; enable USB debugging on it and connect it")
    state = devices[0]["state"]
    raise InputError(f"Android device {devices[0]['serial']}: {state}: {_REMEDIES.get(state, 'connect it again')}")


def read_abi(program: Path) -> str:
    """Returns the instruction set that a program is built for, by Android's name.

    Raises:
        InputError: the file is missing, or is no program for a processor that Android runs on.
    """
    try:
        with program.open("rb") as file:
            header = file.read(20)
    except OSError as error:
        raise InputError(f"{program}: {error.strerror}") from None
    if len(header) < 20 or not header.startswith(b"\x7fELF"):
        raise InputError(f"{program}: not a program for Android")
    (machine,) = struct.unpack("<H", header[18:20])
    if machine not in _ABIS:
        raise InputError(f"{program}: a program for processor {machine}, which Android does not run on")
    return _ABIS[machine]


@contextmanager
def _exit_on_termination() -> Iterator[None]:
    """Has SIGTERM raise SystemExit, so that the folder on the device is removed; in the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
