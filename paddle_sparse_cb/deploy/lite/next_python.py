"""Runs Paddle-Lite's optimizer of Python 3.10 in Python 3.11, for machines that have no other Python.

The extension module of `paddlelite` calls nothing that 3.11 lacks, but pybind11 refuses to load it: the module has the
version of Python that it was compiled for as a string, and pybind11 compares it with that of the interpreter. A copy of
the wheel gets the other string. The optimizer runs in a process of its own, and whichever Python runs it, the result is
verified. A module for 3.8 does not run in 3.9.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from ...errors import PipelineError
from ...utils.downloads import cached_folder

WHEEL_OF = {"3.11": "3.10"}  # the versions of Python that can run the wheel of the previous one
_MODULE = Path("paddlelite", "lite.so")


def adapt_wheel(folder: Path, python: str) -> Path:
    """Returns a copy of an unpacked wheel in the download cache that the next version of Python loads.

    Args:
        folder: the wheel for `WHEEL_OF[python]`.
        python: the version of Python that is to load it.

    Raises:
        PipelineError: the module does not name its version of Python where it should.
    """
    return cached_folder(f"packages/{folder.name}-for-{python}", lambda scratch: _copy(folder, scratch, python))


def _copy(folder: Path, scratch: Path, python: str) -> None:
    content = (folder / _MODULE).read_bytes()
    present, wanted = (b"\0%s\0lite\0" % version.encode() for version in (WHEEL_OF[python], python))
    if content.count(present) != 1:
        raise PipelineError(f"{folder / _MODULE} is damaged; delete {folder} to download it again")
    shutil.copytree(folder, scratch)
    (scratch / _MODULE).write_bytes(content.replace(present, wanted))
