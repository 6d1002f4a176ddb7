"""An ARM Python with MNN in QEMU's user emulation, from packages alone: Debian's for arm64 and wheels for aarch64.

Nothing is installed: the unpacked packages are in the download cache, and apt works on lists of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from paddle_sparse_cb.errors import PipelineError
from paddle_sparse_cb.utils.downloads import cached_folder
from paddle_sparse_cb.utils.packages import Wheel, fetch_wheel

HERE = Path(__file__).parent
# Each of these, or the first that the distribution has of several names.
PYTHON = ("python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib")
LIBRARIES = (
    "libc6",
    "libexpat1|libexpat1t64",
    "zlib1g",
    "libssl3|libssl3t64",
    "libffi8",
    "libstdc++6",
    "libgcc-s1",
    "libbz2-1.0",
    "liblzma5",
)
QEMU = (
    "qemu-user",
    "libcapstone4|libcapstone5",
    "libnuma1",
    "liburing2",
    "libglib2.0-0|libglib2.0-0t64",
    "libpcre2-8-0",
)
ARM = {"python": "3.11", "platform": "manylinux2014_aarch64"}
WHEELS = (
    Wheel("mnn", "3.6.1", "7f8fbf264047e81bf66f0b04ef95a8c83b8d5ca0a3670afcf3c0c3b6861de4a5", 17, **ARM),
    Wheel("numpy", "1.23.5", "5039f55555e1eab31124a5768898c9e22c25a65c1e0037f4d7c495a45778c9f2", 14, **ARM),
)
TIMEOUT = 1800  # seconds
PLUGIN_VERSIONS = (1, 2, 3, 4, 5)  # each QEMU accepts some of them


@dataclass(frozen=True)
class Emulated:
    """What a model did in the emulation.

    Attributes:
        outputs: its outputs by name.
        instructions: the executed instructions of one inference.
    """

    outputs: dict[str, np.ndarray]
    instructions: int


@dataclass(frozen=True)
class Emulator:
    """An emulated ARM machine.

    Attributes:
        command: starts the ARM Python.
        environment: its environment variables.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str]

    def run(self, models: Mapping[Path, Mapping[str, np.ndarray]]) -> dict[Path, Emulated]:
        """Runs MNN models with one thread each and counts instructions.

        Args:
            models: the inputs of each `.mnn` file by name.

        Raises:
            PipelineError: the emulation failed.
        """
        with tempfile.TemporaryDirectory() as scratch:
            jobs = []
            for index, (model, inputs) in enumerate(models.items()):
                files = {name: str(Path(scratch, f"{index}.{name}.npz")) for name in ("inputs", "outputs")}
                np.savez(files["inputs"], **inputs)
                jobs.append({"model": str(model.absolute()), **files})
            spec = Path(scratch, "jobs.json")
            spec.write_text(json.dumps(jobs))
            errors = _call([*self.command, str(HERE / "arm_guest.py"), str(spec)], self.environment).stderr
            counts = [int(number) for number in re.findall(r"^instructions (\d+)$", errors, re.MULTILINE)]
            if len(counts) != 4 * len(jobs):
                raise PipelineError(f"the emulator counted at {len(counts)} marks of {4 * len(jobs)}")
            return {
                model: Emulated(dict(np.load(job["outputs"])), counts[4 * index + 3] - counts[4 * index + 2])
                for index, (model, job) in enumerate(zip(models, jobs))
            }


def prepare(scratch: Path) -> Emulator:
    """Fetches what is missing in the cache, and compiles the plugin that counts instructions.

    Args:
        scratch: an existing folder for the plugin, which must exist as long as the emulator is used.

    Raises:
        PipelineError: this machine is not x86-64 Linux with apt and a C compiler, or something cannot be fetched.
    """
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise PipelineError(f"the emulation needs x86-64 Linux, found {platform.system()} {platform.machine()}")
    root = cached_folder("arm/python3.11", lambda folder: _fetch_debian(folder, "arm64", (*PYTHON, *LIBRARIES)))
    path = os.pathsep.join(str(fetch_wheel(wheel)) for wheel in WHEELS)
    guest = {"PATH": os.environ["PATH"], "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    problem = ""
    for qemu, own in _emulators():
        for version in PLUGIN_VERSIONS:
            plugin = _compile_plugin(scratch, version)
            command = (
                qemu,
                "-cpu",
                "cortex-a76",
                "-L",
                str(root),
                "-plugin",
                str(plugin),
                str(root / "usr/bin/python3.11"),
            )
            emulator = Emulator(command, {**guest, **own})
            try:
                _call([*command, "-c", "pass"], emulator.environment)
            except PipelineError as error:
                problem = str(error)
            else:
                return emulator
    raise PipelineError(f"the emulation does not start: {problem}")


def _emulators() -> Iterator[tuple[str, dict[str, str]]]:
    """Yields the path of QEMU on this machine, then of one from Debian's package, each with environment variables."""
    installed = shutil.which("qemu-aarch64")
    if installed:
        yield installed, {}
    folder = cached_folder("arm/qemu", lambda folder: _fetch_debian(folder, "amd64", QEMU))
    libraries = os.pathsep.join(str(folder / part / "x86_64-linux-gnu") for part in ("usr/lib", "lib"))
    # QEMU is to look there, and the ARM Python is not.
    yield str(folder / "usr/bin/qemu-aarch64"), {"LD_LIBRARY_PATH": libraries, "QEMU_UNSET_ENV": "LD_LIBRARY_PATH"}


def _compile_plugin(scratch: Path, version: int) -> Path:
    plugin = scratch / f"count_instructions{version}.so"
    options = ["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", f"-DVERSION={version}"]
    _call(["cc", *options, str(HERE / "count_instructions.c"), "-o", str(plugin)], os.environ)
    return plugin


def _fetch_debian(target: Path, architecture: str, names: Sequence[str]) -> None:
    """Downloads packages of an architecture with apt, which verifies signatures and digests, and unpacks them.

    `SHA256SUMS` in the target lists the packages with their digests. Versions are not pinned: a distribution removes
    packages when it updates them.
    """
    print(f"downloading {names[0]} for {architecture} and what it needs ...", flush=True)
    folder = target.parent
    for name in ("State/lists/partial", "Cache/archives/partial", "packages"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "State/status").touch()
    settings = {
        "Dir::State": folder / "State",
        "Dir::State::status": folder / "State/status",
        "Dir::Cache": folder / "Cache",
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "APT::Sandbox::User": "",
    }
    options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    _call(["apt-get", *options, "--quiet", "update"], os.environ)
    known = set(_call(["apt-cache", *options, "pkgnames"], os.environ).stdout.split())
    chosen = [next((name for name in one.split("|") if name in known), one) for one in names]
    _call(["apt-get", *options, "--quiet", "download", *chosen], os.environ, folder / "packages")
    lines = []
    for package in sorted((folder / "packages").glob("*.deb")):
        lines.append(f"{hashlib.sha256(package.read_bytes()).hexdigest()}  {package.name}\n")
        _call(["dpkg-deb", "--extract", str(package), str(target)], os.environ)
    (target / "SHA256SUMS").write_text("".join(lines))


def _call(
    command: Sequence[str], environment: Mapping[str, str], folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=dict(environment),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT,
        )
    except FileNotFoundError:
        raise PipelineError(f"{command[0]} is not on this machine") from None
    except subprocess.TimeoutExpired:
        raise PipelineError(f"{Path(command[0]).name} did not end in {TIMEOUT} seconds") from None
    if done.returncode:
        lines = [
            line for line in (done.stdout + done.stderr).splitlines() if line.strip() and not line.startswith("W:")
        ]
        raise PipelineError(f"{Path(command[0]).name} failed: {lines[-1] if lines else f'exit code {done.returncode}'}")
    return done
