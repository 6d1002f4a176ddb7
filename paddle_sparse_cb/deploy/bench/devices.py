"""Rows from a device: the `.nb` and `.mnn` files in a folder, timed by the runners of `examples/lite_runner`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ...errors import InputError
from ...utils.validation import check_count
from ..device import CLUSTERS, Adb, DeviceTiming, Runner, TimingOptions
from ..lite.nb import read_nb
from ..mnn.reader import read_mnn
from ..program import read_inputs
from .folder import SUBFOLDERS, describe_mnn, zero_ratio
from .rows import Row
from .timing import MAX_SPREAD

_SUFFIXES = {"lite_runner": ".nb", "mnn_runner": ".mnn"}
_MAX_DIFFERENCE = 0.01  # relative, of the mean magnitude of an output, dense and sparse


@dataclass(frozen=True)
class DeviceOptions:
    """How files are timed on a device.

    Attributes:
        runners: commands that start a runner on the device or, with `adb`, paths of programs that are built for it. The
            name of the program tells which files it takes: `lite_runner` or `mnn_runner`.
        adb: serial number of an Android device; empty for the only one; None if the runners are commands.
        threads: the numbers of threads, each measured.
        clusters: the cores to run on, each of `CLUSTERS` measured.
        log: receives a line for each step.
        timing: warm-up, number of runs and timeout; inputs, threads and cluster are replaced.

    Raises:
        InputError: there is no runner, or a value is not allowed.
    """

    runners: Sequence[str]
    adb: str | None = None
    threads: Sequence[int] = (1,)
    clusters: Sequence[str] = ("any",)
    log: Callable[[str], None] = lambda line: None
    timing: TimingOptions = field(default_factory=TimingOptions)

    def __post_init__(self) -> None:
        if not self.runners and self.adb is None:
            raise InputError("--cluster needs a device: --runner CMD, or --adb and --runner FILE")
        if not self.runners:
            raise InputError(
                "--adb needs the program that runs on the device: --runner build/lite_runner (examples/lite_runner "
                "has its source and the command that builds it)"
            )
        for cluster in self.clusters:
            if cluster not in CLUSTERS:
                raise InputError(f"--cluster must be among {', '.join(CLUSTERS)}, got {cluster!r}")
        for threads in self.threads:
            check_count("threads", threads, 1)
        for command in self.runners:
            runner_suffix(command)


@dataclass(frozen=True)
class DeviceFile:
    """A file that is timed on a device.

    Attributes:
        path: the file.
        kind: `dense` or `sparse`.
        ratio: fraction of zeros in the pruned weights; None if unknown.
        block: rows and columns of the blocks of zeros.
        precision: `FP32`, `FP16` or `INT8`.
        inputs: the shape of each input, in the model's order.
    """

    path: Path
    kind: str
    ratio: float | None
    block: tuple[int, int]
    precision: str
    inputs: tuple[tuple[int, ...], ...]


def runner_suffix(command: str) -> str:
    """Returns the suffix of the files that a runner takes, which the name of its program tells.

    Raises:
        InputError: it is no name of a runner.

    Examples:
        >>> runner_suffix("ssh pi ./lite_runner"), runner_suffix("build/mnn_runner")
        ('.nb', '.mnn')
    """
    program = re.split(r"[/\s]", command.strip("'\" "))[-1]
    for name, suffix in _SUFFIXES.items():
        if program.startswith(name):
            return suffix
    raise InputError(
        f"--runner {command!r}: must end with the path of a lite_runner (.nb files) or a mnn_runner (.mnn files)"
    )


def find_device_files(folder: Path, suffix: str) -> list[DeviceFile]:
    """Returns the files in a folder that a runner takes, dense ones first.

    Args:
        folder: the output folder of a recipe, or another one.
        suffix: `.nb` or `.mnn`.

    Raises:
        InputError: a file is damaged, or the shapes of the inputs of `.nb` files are not known.
    """
    paths = sorted(path for path in folder.glob(f"*{suffix}") if path.is_file())
    describe = _describe_mnn if suffix == ".mnn" else _describe_nb
    return [describe(path) for path in paths]


def measure_on_device(folder: Path, options: DeviceOptions) -> list[Row]:
    """Times the files in a folder on a device.

    Args:
        folder: see `find_device_files`.
        options: how.

    Returns:
        A row for each file, number of threads and cluster, without speed-ups; none if there are no files.

    Raises:
        InputError: a file, a runner or the device cannot be used; see `Runner` and `Adb`.
        PipelineError: a runner failed.
    """
    rows = []
    for command in options.runners:
        files = find_device_files(folder, runner_suffix(command))
        if not files:
            continue
        device: Runner | Adb = Runner(command) if options.adb is None else Adb(Path(command), options.adb or None)
        for cluster in options.clusters:
            for threads in options.threads:
                options.log(f"timing {len(files)} files with {command}: {threads} threads, cores: {cluster} ...")
                timing = replace(options.timing, inputs=files[0].inputs, threads=threads, cluster=cluster)
                timings = device.time([file.path for file in files], timing)
                rows += [_row(file, one, _mismatch(one, timings)) for file, one in zip(files, timings)]
    return rows


def _describe_mnn(path: Path) -> DeviceFile:
    kind, ratio, block = describe_mnn(path)
    return DeviceFile(path, kind, ratio, block, "FP32", tuple(read_mnn(path).inputs.values()))


def _describe_nb(path: Path) -> DeviceFile:
    model = read_nb(path)
    convolutions = model.convolutions.values()
    blocks = [block for op in convolutions if (block := op.block) is not None]
    precisions = {op.precision for op in convolutions}
    return DeviceFile(
        path=path,
        kind="sparse" if blocks else "dense",
        ratio=_ratio_of_nb(path.with_name(path.name.replace("sparse", "dense")) if blocks else path),
        block=max(blocks, default=(1, 1)),
        precision=next((one for one in ("INT8", "FP16") if one in precisions), "FP32"),
        inputs=_nb_inputs(path),
    )


def _ratio_of_nb(path: Path) -> float | None:
    """Returns the fraction of zeros in a file with dense kernels: sparse ones do not tell the number of columns."""
    if not path.is_file():
        return None
    model = read_nb(path)
    dense = [op for op in model.convolutions.values() if op.type == "conv2d"]
    if len(dense) < sum(op.type != "depthwise_conv2d" for op in model.convolutions.values()):
        return None
    return zero_ratio(model.parameters[op.inputs["Filter"]] for op in dense if op.inputs["Filter"] in model.parameters)


def _nb_inputs(path: Path) -> tuple[tuple[int, ...], ...]:
    """Returns the shapes of the inputs, which are those of the exported model that the file was made from."""
    prefixes = [path.parent / name / stem for name in SUBFOLDERS for stem in ("model", path.stem)]
    for prefix in prefixes:
        if prefix.with_name(f"{prefix.name}.pdmodel").is_file():
            return tuple(read_inputs(prefix).values())
    raise InputError(
        f"{path}: a .nb file does not contain the shapes of its inputs; put the exported model that it was made from "
        f"beside it, as {path.parent / 'inference' / 'model.pdmodel'}"
    )


def _mismatch(timing: DeviceTiming, timings: Sequence[DeviceTiming]) -> str:
    """Returns a note if a sparse file gives other outputs on the device than the dense file of the same weights."""
    dense = timing.file.with_name(timing.file.name.replace("sparse", "dense"))
    for other in timings:
        if other.file == dense and not _agree(timing.outputs, other.outputs):
            return f"OUTPUTS DIFFER from those of {dense.name}"
    return ""


def _agree(outputs: Sequence[float | None], expected: Sequence[float | None]) -> bool:
    if len(outputs) != len(expected):
        return False
    return all(
        one is not None and other is not None and abs(one - other) <= _MAX_DIFFERENCE * max(abs(other), 1e-30)
        for one, other in zip(outputs, expected)
    )


def _row(file: DeviceFile, timing: DeviceTiming, mismatch: str) -> Row:
    return Row(
        runtime=timing.runtime,
        version=timing.version,
        kind=file.kind,
        ratio=file.ratio,
        block=file.block,
        precision=file.precision,
        threads=timing.threads,
        mb=file.path.stat().st_size / 1e6,
        ms=timing.ms,
        spread=timing.spread,
        disturbed=timing.spread > MAX_SPREAD,
        note=mismatch,
        device=" ".join(filter(None, [timing.device, timing.abi])) or "device",
        file=file.path.name,
        group=str(file.inputs),
        cluster=timing.cluster,
        cpus=timing.cpus,
        temperature=None if timing.temperature == (None, None) else timing.temperature,
    )
