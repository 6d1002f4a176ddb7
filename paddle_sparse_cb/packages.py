"""Wheels from the package index, pinned by digest and unpacked into the cache, for what they carry.

They are never installed into the user's environment: a `deepforest` would pull half of PyTorch in.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from .errors import StepError
from .files import cache_dir, made_once


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


def unpack(wheel: Wheel) -> Path:
    """Fetches a wheel with pip, which checks the digest, and unpacks it without what it depends on.

    pip runs in a process of its own, and does the unpacking too: within this one, zlib clashes with the copy that
    Paddle 2.6 brings.

    Returns:
        The folder that holds the wheel's packages; the second call finds it in the cache.

    Raises:
        StepError: pip could not fetch it, or its digest is another one.
    """
    folder = cache_dir() / "packages" / "-".join(filter(None, (wheel.name, wheel.version, wheel.python)))
    return made_once(folder, lambda scratch: _install(wheel, scratch))


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
        raise StepError(f"cannot fetch the package {wheel.name}=={wheel.version}: {reason}")
