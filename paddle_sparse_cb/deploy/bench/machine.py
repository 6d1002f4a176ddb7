"""The machine that is measured, and what is known about the gain on machines of its kind."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# Instruction sets that decide which kernels a runtime uses, as Linux names them.
_FEATURES = (
    *("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_tile"),  # x86
    *("asimd", "fphp", "asimdhp", "asimddp", "i8mm", "bf16", "sve"),  # ARM: NEON, FP16 (two), dot products
)
_IN_ORDER = {"0xd03": "Cortex-A53", "0xd04": "Cortex-A35", "0xd05": "Cortex-A55", "0xd46": "Cortex-A510"}
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


@dataclass(frozen=True)
class Machine:
    """A machine.

    Attributes:
        cpu: name of the CPU.
        cores: number of CPUs that this process may use.
        features: instruction sets that matter for inference.
        os: operating system and architecture.
        governor: the policy that sets the clock; None if the system does not tell.
    """

    cpu: str
    cores: int
    features: tuple[str, ...]
    os: str
    governor: str | None

    def to_dict(self) -> dict[str, Any]:
        """Returns the machine as plain values that can be saved as JSON."""
        return {**asdict(self), "features": list(self.features)}

    def __str__(self) -> str:
        features = f", {' '.join(self.features)}" if self.features else ""
        governor = f", governor {self.governor}" if self.governor else ""
        return f"{self.cpu}, {self.cores} CPUs{features}, {self.os}{governor}"


def this_machine() -> Machine:
    """Describes the machine that this process runs on."""
    return parse_machine(_read(Path("/proc/cpuinfo")), usable_cores(), _read(_GOVERNOR).strip() or None)


def usable_cores() -> int:
    """Returns the number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def parse_machine(cpuinfo: str, cores: int, governor: str | None) -> Machine:
    """Describes a machine from the content of its `/proc/cpuinfo`, which is empty on other systems than Linux.

    Args:
        cpuinfo: the content.
        cores: the number of CPUs.
        governor: the policy that sets the clock.
    """
    fields: dict[str, list[str]] = {}
    for line in cpuinfo.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip(), []).append(value.strip())
    found = {flag for key in ("flags", "Features") for flag in " ".join(fields.get(key, [])).split()}
    kinds = " + ".join(_arm_name(part) for part in dict.fromkeys(fields.get("CPU part", [])))
    names = dict.fromkeys(fields.get("model name", []) or fields.get("Model", []))
    board = " + ".join(names)
    cpu = f"{board} ({kinds})" if board and kinds else board or kinds
    cpu = cpu or platform.processor() or platform.machine()
    system = f"{platform.system()} {platform.machine()}"
    return Machine(cpu, cores, tuple(name for name in _FEATURES if name in found), system, governor)


def advice(machine: Machine, here: bool = True) -> list[str]:
    """Returns lines on which devices gain from sparse models, with the published figures (docs/devices.md).

    Args:
        machine: this machine.
        here: whether anything was measured on it.
    """
    lines = [*_advice_here(machine)] if here else []
    lines.append(
        "published for ARM, PicoDet-m 75%: Snapdragon 865 gains (41.3 -> 25.8 ms), Cortex-A53 loses (431 -> 452 ms); "
        "where a device computes in FP16, dense FP16 is the model to compare with"
    )
    return lines


def _advice_here(machine: Machine) -> Iterator[str]:
    for name in _IN_ORDER.values():
        if name in machine.cpu:
            yield f"{name} executes in order: expect sparse models to be slower than dense ones on it"
    if "asimdhp" in machine.features:
        yield "this CPU computes in FP16: compare with dense FP16, and combine both: sparse FP16"
    if "avx512f" in machine.features:
        yield "this CPU has AVX-512, which dense runtimes use and MNN's packages (3.6) do not"


def _arm_name(part: str) -> str:
    return _IN_ORDER.get(part.lower(), f"ARM part {part}")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
