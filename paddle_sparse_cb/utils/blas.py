"""Lets Paddle's matrix products use the vector instructions of AMD processors."""

from __future__ import annotations

import os
from pathlib import Path

MKL_CPU_TYPE = "MKL_DEBUG_CPU_TYPE"


def use_vector_instructions(cpuinfo: Path = Path("/proc/cpuinfo")) -> None:
    """Sets `MKL_DEBUG_CPU_TYPE=5` on AMD processors with AVX2, unless it is set. Paddle must not have computed yet.

    Paddle for CPUs contains the MKL of 2019, which selects its kernels by the name of the vendor: on AMD it takes the
    slowest ones without this variable.

    Args:
        cpuinfo: the description of the processor; on other systems than Linux there is none, and nothing is set.
    """
    try:
        text = cpuinfo.read_text(encoding="utf-8")
    except OSError:
        return
    if "AuthenticAMD" in text and " avx2 " in text:
        os.environ.setdefault(MKL_CPU_TYPE, "5")
