"""What is measured on a device and how: options, results, and the lines that a runner prints."""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError, PipelineError
from ...utils.validation import check_count
from ..lite.nb import read_nb

CLUSTERS = ("any", "big", "little")
_MAX_ELEMENTS = 1 << 28  # of an input, as in the runner


@dataclass(frozen=True)
class TimingOptions:
    """How files are timed on a device.

    Attributes:
        inputs: the shape of each input of a `.nb` file, in the model's order. A `.mnn` file contains them.
        threads: number of threads.
        cluster: the cores to run on: `big`, `little`, or `any` as the system chooses.
        warmup: runs before each series that are not timed.
        repeats: timed runs of a series.
        rounds: series of each file. The files are run alternately, since a device becomes slower as it warms up.
        timeout: seconds that one series may take.

    Raises:
        InputError: a value is not allowed.
    """

    inputs: Sequence[Sequence[int]] = ()
    threads: int = 1
    cluster: str = "any"
    warmup: int = 10
    repeats: int = 30
    rounds: int = 3
    timeout: float = 600.0

    def __post_init__(self) -> None:
        for name, least in (("threads", 1), ("warmup", 0), ("repeats", 1), ("rounds", 1)):
            check_count(name, getattr(self, name), least)
        if self.cluster not in CLUSTERS:
            raise InputError(f"cluster must be one of {', '.join(CLUSTERS)}, got {self.cluster!r}")
        if not 0 < self.timeout < math.inf:
            raise InputError(f"timeout must be a number of seconds above 0, got {self.timeout!r}")
        for shape in self.inputs:
            sizes = [check_count("a dimension of an input", size, 1) for size in shape]
            if not sizes or math.prod(sizes) > _MAX_ELEMENTS:
                raise InputError(f"an input cannot have the shape {list(shape)}")

    def arguments(self, file: Path) -> list[str]:
        """Returns the runner's arguments for a file, without the file: numbers and fixed words only."""
        shapes = self.inputs if file.suffix == ".nb" else ()
        inputs = [word for shape in shapes for word in ("--input", "x".join(str(int(size)) for size in shape))]
        counts = {"--warmup": self.warmup, "--repeats": self.repeats, "--threads": self.threads}
        numbers = [word for name, count in counts.items() for word in (name, str(int(count)))]
        return [*inputs, *numbers, "--cluster", self.cluster]


@dataclass(frozen=True)
class DeviceTiming:
    """The latency of a file on a device.

    Attributes:
        file: the file.
        ms: median latency in milliseconds.
        spread: interquartile range of the latency divided by its median.
        runs: the latency of each run in milliseconds, in order.
        threads: number of threads.
        cluster: the cores that were asked for, one of `CLUSTERS`.
        cpus: the processors that the runner could use in the end.
        temperature: degrees Celsius of the hottest sensor of the processor before the first and after the last run;
            None if none can be read.
        device: the name of the device; empty if it is not known.
        abi: its instruction set, such as `arm64-v8a` or `aarch64`.
        runtime: the runtime, such as `Paddle-Lite`.
        version: the runtime's version.
        outputs: the mean magnitude of each output, for inputs that are always the same; None for one that is not
            finite. Two files of one network must agree.
    """

    file: Path
    ms: float
    spread: float
    runs: tuple[float, ...]
    threads: int
    cluster: str
    cpus: tuple[int, ...]
    temperature: tuple[float | None, float | None]
    device: str
    abi: str
    runtime: str
    version: str
    outputs: tuple[float | None, ...]

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as JSON-serializable values, without the single runs."""
        fields = {**asdict(self), "file": str(self.file)}
        del fields["runs"]
        return fields


@dataclass(frozen=True)
class Series:
    """What a runner printed: the latency of each run, and the fields of its last line."""

    runs: tuple[float, ...]
    result: dict[str, Any]


def time_alternately(
    files: Sequence[Path], options: TimingOptions, run: Callable[[Path], Series], device: str = "", abi: str = ""
) -> list[DeviceTiming]:
    """Runs files alternately and summarizes the series of each.

    Args:
        files: files that exist.
        options: how they are timed.
        run: runs one series of a file.
        device: the name of the device, instead of what the runner says.
        abi: its instruction set, instead of what the runner says.
    """
    series: dict[Path, list[Series]] = {file: [] for file in files}
    for _ in range(options.rounds):
        for file in series:
            series[file].append(run(file))
    return [_summarize(file, options, series[file], device, abi) for file in files]


def _summarize(file: Path, options: TimingOptions, series: list[Series], device: str, abi: str) -> DeviceTiming:
    runs = tuple(ms for one in series for ms in one.runs)
    low, median, high = np.percentile(runs, (25, 50, 75))
    first, last = series[0].result, series[-1].result
    return DeviceTiming(
        file=file,
        ms=float(median),
        spread=float((high - low) / median),
        runs=runs,
        threads=options.threads,
        cluster=options.cluster,
        cpus=tuple(last["cpus"]),
        temperature=(first["temperature"][0], last["temperature"][1]),
        device=device or last["device"],
        abi=abi or last["machine"],
        runtime=last["runtime"],
        version=last["version"],
        outputs=tuple(output["mean_magnitude"] for output in last["outputs"]),
    )


def check_files(files: Sequence[Path]) -> None:
    """Raises InputError if there is no file, one is missing, or one is neither `.nb` nor `.mnn`."""
    if not files:
        raise InputError("no files to time on the device")
    for file in files:
        if file.suffix not in (".nb", ".mnn"):
            raise InputError(f"{file}: only .nb and .mnn files can be timed on a device")
        if not file.is_file():
            raise InputError(f"{file}: no such file")


def parse_output(where: str, output: str, repeats: int) -> Series:
    """Reads the lines of a runner; lines that are not JSON are those of a runtime and are ignored.

    Args:
        where: the runner and the file, for error messages.
        output: what the runner printed.
        repeats: the number of runs that it was asked for.

    Raises:
        PipelineError: the output has not that many runs and a result, or a value is not what it must be.
    """
    try:
        *runs, result = (json.loads(line) for line in output.splitlines() if line.startswith("{"))
        times = tuple(float(run["ms"]) for run in runs)
        if len(times) != repeats or not all(0 < ms < math.inf for ms in times):
            raise ValueError(f"{len(times)} runs of {repeats}")
        before, after = result["temperature"]
        texts = [result[name] for name in ("device", "machine", "runtime", "version")]
        measured = [before, after, *(output["mean_magnitude"] for output in result["outputs"])]
        if not all(isinstance(text, str) for text in texts) or not all(isinstance(cpu, int) for cpu in result["cpus"]):
            raise ValueError("a field has another type")
        if not all(number is None or math.isfinite(number) for number in measured):
            raise ValueError("a number is not finite")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise PipelineError(f"{where}: the runner printed something else than its results: {error}") from None
    return Series(times, result)


def describe_failure(where: str, file: Path, code: int, errors: str) -> PipelineError:
    """Returns the error for a runner that failed.

    Args:
        where: the runner and the file, for the message.
        file: the file that it ran.
        code: its exit code: negative, or 128 more than a signal, if a signal ended it.
        errors: what it printed to standard error.
    """
    number = -code if code < 0 else code - 128
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    reason = f": {lines[-1]}" if lines else ""
    try:
        name = signal.Signals(number).name
    except ValueError:
        return PipelineError(f"{where}: the runner failed with exit code {code}{reason}")
    hint = ""
    if name == "SIGILL" and _is_fp16(file):
        hint = "; it is an FP16 file, and the processor may lack FP16 arithmetic (asimdhp in /proc/cpuinfo)"
    return PipelineError(f"{where}: the runner was ended by {name}{reason}{hint}")


def _is_fp16(file: Path) -> bool:
    if file.suffix != ".nb":
        return False
    try:
        return any(operator.precision == "FP16" for operator in read_nb(file).operators)
    except InputError:
        return False
