"""Packages pinned by digest and unpacked into the cache for what they carry: wheels, and one of Debian's.

They are never installed into the user's environment: a `deepforest` would pull half of PyTorch in.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from ..errors import PipelineError
from .files import build_once, cache_dir


@dataclass(frozen=True)
class Wheel:
    """A wheel, pinned.

    Attributes:
        name: the package's name.
        version: its version.
        sha256: the digest of the wheel.
        megabytes: how much there is to fetch.
        python: the interpreter that it is for, such as `3.10`; None for any.
    """

    name: str
    version: str
    sha256: str
    megabytes: int
    python: str | None = None


def fetch_wheel(wheel: Wheel) -> Path:
    """Fetches a wheel with pip, which checks the digest, and unpacks it without what it depends on.

    pip runs in a process of its own, and does the unpacking too: within this one, zlib clashes with the copy that
    Paddle 2.6 brings.

    Returns:
        The folder that holds the wheel's packages; the second call finds it in the cache.

    Raises:
        PipelineError: pip could not fetch it, or its digest is another one.
    """
    folder = cache_dir() / "packages" / "-".join(filter(None, (wheel.name, wheel.version, wheel.python)))
    return build_once(folder, lambda scratch: _install(wheel, scratch))


def _install(wheel: Wheel, target: Path) -> None:
    print(f"fetching {wheel.name} {wheel.version} ({wheel.megabytes} MB) ...", flush=True)
    wanted = target.parent / "requirements.txt"
    wanted.write_text(f"{wheel.name}=={wheel.version} --hash=sha256:{wheel.sha256}\n")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps",
               "--no-compile", "--only-binary", ":all:", "--require-hashes", "--requirement", str(wanted),
               "--target", str(target)]
    if wheel.python:
        command += ["--python-version", wheel.python]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        reason = errors[-1] if errors else f"pip ended with {done.returncode}"
        raise PipelineError(f"cannot fetch the package {wheel.name}=={wheel.version}: {reason}")


@dataclass(frozen=True)
class DebianPackage:
    """A package of Debian or Ubuntu, pinned.

    Attributes:
        name: the package's name.
        version: its version.
        sha256: the digest of the `.deb`.
        megabytes: how much there is to fetch.
    """

    name: str
    version: str
    sha256: str
    megabytes: int


def fetch_debian_package(package: DebianPackage) -> Path:
    """Fetches a package with the machine's own apt, checks its digest and unpacks it; neither needs root.

    Returns:
        The folder that stands for `/`; the second call finds it in the cache.

    Raises:
        PipelineError: there is no apt here, it could not fetch the package, or its digest is another one.
    """
    folder = cache_dir() / "packages" / f"{package.name}-{package.version}"
    return build_once(folder, lambda scratch: _extract(package, scratch))


def _extract(package: DebianPackage, target: Path) -> None:
    print(f"fetching {package.name} {package.version} ({package.megabytes} MB) ...", flush=True)
    wanted = f"{package.name}={package.version}"
    folder = target.parent
    try:
        _call(["apt-get", "download", wanted], folder, wanted)
    except PipelineError:  # its lists may be missing or old: with lists of our own, for which nobody has to be root
        (folder / "State" / "lists" / "partial").mkdir(parents=True)
        (folder / "Cache" / "archives" / "partial").mkdir(parents=True)
        own = [option for name in ("State", "Cache") for option in ("-o", f"Dir::{name}={folder / name}")]
        for command in (["apt-get", *own, "update"], ["apt-get", *own, "download", wanted]):
            _call(command, folder, wanted)
    archive = next(folder.glob("*.deb"))
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != package.sha256:
        raise PipelineError(f"cannot use the package {wanted}: its digest is {found}, not {package.sha256}")
    _call(["dpkg-deb", "--extract", str(archive), str(target)], folder, wanted)


def _call(command: list[str], folder: Path, wanted: str) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    except FileNotFoundError:
        raise PipelineError(f"cannot fetch the package {wanted}: this machine has no {command[0]}") from None
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("E:")]
        reason = errors[-1] if errors else f"{command[0]} ended with {done.returncode}"
        raise PipelineError(f"cannot fetch the package {wanted}: {reason}")
