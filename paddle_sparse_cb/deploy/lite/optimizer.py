"""Runs Paddle-Lite's optimizer, which turns an exported model into the `.nb` file that a phone loads.

`paddlelite` has wheels for two versions of Python only, and the training need not run on either. The optimizer is
therefore a program in a process of its own, which `find_optimizer` finds or installs.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from ...errors import InputError, PipelineError
from ...hooks import HookContext
from ...pruning.plan import PrunePlan
from ...utils.files import atomic_write
from ...utils.messages import logger
from ...utils.packages import Wheel, fetch_wheel, is_cached
from ..manifest import discard, exported_files, record
from .constraints import THRESHOLD, check_options, check_runs_sparse, check_sparse
from .next_python import WHEEL_OF, adapt_wheel
from .pooling import check_pools

_DIGESTS = {
    "3.10": "b1e6081c4154e50479426df9c7390c0d1d99dd9d832a270d1fe925894768fb62",
    "3.8": "8a42fe8737d3ade116264fd85b9f24a2bbe42095882e0a44a4ec7f0104fcc196",
}
WHEELS = {python: Wheel("paddlelite", "2.13rc0", digest, 47, python) for python, digest in _DIGESTS.items()}


@dataclass(frozen=True)
class Optimizer:
    """A Paddle-Lite optimizer that is known to run.

    Attributes:
        command: the command that starts it.
        environment: environment variables it needs in addition to this process's.
    """

    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs the optimizer with arguments of its own command line and captures its output."""
        return subprocess.run(
            [*self.command, *arguments],
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            errors="replace",
        )


def find_optimizer(download: bool = True) -> Optimizer:
    """Finds Paddle-Lite's optimizer, or downloads it into the cache.

    Tried in this order: the program that `$PADDLE_LITE_OPT` names; `paddlelite` in this Python; `paddle_lite_opt` on
    PATH; the wheel in the cache, run by a Python 3.10 or 3.8 of this machine, or else by a 3.11 (`next_python`).

    Args:
        download: whether the wheel may be downloaded.

    Raises:
        InputError: `$PADDLE_LITE_OPT` names a program that does not run, or that is not the optimizer.
        PipelineError: there is no optimizer, no Python to run the wheel, or the wheel in the cache is damaged, or not
            there and may not be downloaded.
    """
    explicit = os.environ.get("PADDLE_LITE_OPT")
    if explicit:
        optimizer = Optimizer((explicit,))
        if not _runs(optimizer):
            raise InputError(f"PADDLE_LITE_OPT={explicit} is not a working Paddle-Lite optimizer")
        return optimizer
    beside = Path(sys.executable).with_name("paddle_lite_opt")
    if find_spec("paddlelite") and beside.is_file() and _runs(Optimizer((sys.executable, str(beside)))):
        return Optimizer((sys.executable, str(beside)))
    on_path = shutil.which("paddle_lite_opt")
    if on_path and _runs(Optimizer((on_path,))):
        return Optimizer((on_path,))
    found = next(_interpreters_of_wheels(), None)
    if found:
        return _optimizer_of_wheel(*found, download)
    raise PipelineError(
        "Paddle-Lite's optimizer needs a Python 3.8, 3.10 or 3.11 on this machine, and none was found; "
        "install one (for example: uv python install 3.10) or name an optimizer in PADDLE_LITE_OPT, "
        "then run: paddle-sparse optimize RECIPE"
    )


def _interpreters_of_wheels() -> Iterator[tuple[str, Wheel, str | None]]:
    """Yields interpreters with the wheel for each, and the version that the wheel is to be adapted to."""
    for version, wheel in WHEELS.items():
        for python in find_interpreters(version):
            yield python, wheel, None
    for version, previous in WHEEL_OF.items():
        own = [sys.executable] if version == "{}.{}".format(*sys.version_info) else []
        for python in itertools.chain(own, find_interpreters(version)):
            yield python, WHEELS[previous], version


def _optimizer_of_wheel(python: str, wheel: Wheel, adapted_to: str | None, download: bool) -> Optimizer:
    if not download and not is_cached(wheel):
        raise PipelineError(
            f"Paddle-Lite's optimizer is not here yet; {wheel.megabytes} MB are downloaded when it is needed, "
            f"and {python} runs it"
        )
    fetched = fetch_wheel(wheel)
    folder = adapt_wheel(fetched, adapted_to) if adapted_to else fetched
    optimizer = Optimizer((python, str(folder / "bin" / "paddle_lite_opt")), {"PYTHONPATH": str(folder)})
    failure = _failure(optimizer)
    if failure:
        folders = f"{fetched} and {folder}" if adapted_to else fetched
        raise PipelineError(
            f"Paddle-Lite's optimizer in the download cache does not run with {python} ({failure}); if damaged, "
            f"delete {folders} to download it again, then run: paddle-sparse optimize RECIPE"
        )
    return optimizer


def _runs(optimizer: Optimizer) -> bool:
    return not _failure(optimizer)


def _failure(optimizer: Optimizer) -> str:
    """Says why an optimizer does not print its options; empty if it does."""
    try:
        done = optimizer.run("--help")
    except OSError as error:
        return str(error)
    works = done.returncode == 0 and "sparse_model" in done.stdout + done.stderr
    return "" if works else _describe_failure(done)


def _describe_failure(done: subprocess.CompletedProcess[str]) -> str:
    status = f"exit code {done.returncode}" if done.returncode >= 0 else f"signal {-done.returncode}"
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return f"{status}: {lines[-1].strip() if lines else 'no output'}"


def find_interpreters(version: str) -> Iterator[str]:
    """Finds Python interpreters of a version that run; a name on PATH may be a shim without an interpreter.

    Args:
        version: major and minor version, such as "3.10".

    Yields:
        The path of each interpreter: first those of version managers, then those on PATH.
    """
    name = f"python{version}"
    on_path = [Path(folder) / name for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    home = Path(os.path.expanduser("~"))  # stays ~ for a user without a home folder
    # pyenv's root, folders beside its shims and beside this very Python, and uv's folder.
    roots = [
        Path(os.environ.get("PYENV_ROOT", home / ".pyenv")) / "versions",
        *(path.parent.parent / "versions" for path in on_path if path.parent.name == "shims"),
        Path(sys.base_prefix).parent,
        home / ".local/share/uv/python",
    ]
    managed = [python for root in roots for python in sorted(root.glob(f"*{version}*/bin/{name}"), reverse=True)]
    seen = set()
    for python in [*managed, *on_path]:
        if python.is_file() and python.resolve() not in seen:
            seen.add(python.resolve())
            if is_python_version(python, version):
                yield str(python)


def is_python_version(python: str | os.PathLike[str], version: str) -> bool:
    """Whether a program is a Python interpreter of a version, such as "3.10", that runs."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and done.stdout.strip() == version


def optimize(
    prefix: Path,
    output: Path,
    *,
    sparse: bool,
    optimizer: Optimizer | None = None,
    options: Mapping[str, str] | None = None,
) -> Path:
    """Optimizes an exported model for ARM.

    Args:
        prefix: the exported model's path without `.pdmodel`.
        output: the `.nb` file to write. It appears only when it is complete.
        sparse: whether to use sparse kernels for 1x1 convolutions with enough zeros (`constraints.THRESHOLD`).
        optimizer: the result of `find_optimizer`, called if None.
        options: further options of `paddle_lite_opt`, such as `{"enable_fp16": "true"}`.

    Returns:
        `output`.

    Raises:
        InputError: Paddle-Lite would compute the model wrongly or crash (see `check_pools` and `check_sparse`), an
            option is not allowed (see `check_options`), or `.pdmodel` is missing or damaged.
        PipelineError: the optimizer is missing or failed.
    """
    options = options or {}
    check_options(options, sparse)
    check_pools(prefix)
    if sparse:
        check_sparse(prefix)
    optimizer = optimizer or find_optimizer()
    settings = {
        "valid_targets": "arm",  # with any other target beside it, no kernel is sparse
        "sparse_model": str(sparse).lower(),  # compared with 'true': 'True' would be ignored silently
        "sparse_threshold": str(THRESHOLD),
        **options,
    }
    with atomic_write(output) as scratch:
        done = optimizer.run(
            f"--model_file={prefix}.pdmodel",
            f"--param_file={prefix}.pdiparams",
            f"--optimize_out={scratch.with_suffix('')}",
            "--optimize_out_type=naive_buffer",
            *(f"--{name}={value}" for name, value in settings.items()),
        )
        if done.returncode or not scratch.is_file():
            raise PipelineError(f"Paddle-Lite's optimizer failed on {prefix}.pdmodel: {_describe_failure(done)}")
    return output


@dataclass
class OptimizeLite:
    """Post-train hook: optimizes the exported model, and the INT8 model if `QuantizeInt8` made one.

    Writes `model_dense.nb` and, if the plan prunes anything, `model_sparse.nb` from the same weights. With the option
    `enable_fp16` writes beside them `model_dense_fp16.nb` and `model_sparse_fp16.nb`, and for an INT8 model
    `model_int8_dense.nb` and `model_int8_sparse.nb`. At train begin `SparsityCallback` calls `before_training`, so that
    a plan that Paddle-Lite would run dense is refused before any weight has changed.

    Attributes:
        options: options of `paddle_lite_opt` (see `optimize`).

    Raises:
        InputError: when called, see `optimize`.
        PipelineError: when called, see `optimize`.
    """

    options: Mapping[str, str] = field(default_factory=dict)

    def before_training(self, plan: PrunePlan, min_sparsity: Mapping[str, float]) -> None:
        """Raises InputError if an option is not allowed or a planned layer would run dense."""
        check_options(self.options, bool(plan.pruned))
        check_runs_sparse(plan, min_sparsity)

    def files(self, output: Path, *, sparse: bool) -> dict[str, Path]:
        """Returns what is made of the exported model, by the names of `HookContext.artefacts`.

        Args:
            output: the output folder.
            sparse: whether the plan prunes anything.
        """
        kinds = ("dense", "sparse") if sparse else ("dense",)
        files = {f"nb_{kind}": output / f"model_{kind}.nb" for kind in kinds}
        if self.options.get("enable_fp16") == "true":
            files.update({f"nb_fp16_{kind}": output / f"model_{kind}_fp16.nb" for kind in kinds})
        return files

    def __call__(self, context: HookContext) -> None:
        """Adds the artefacts `nb_dense`, `nb_sparse`, and those with `nb_fp16_` and `nb_int8_`, also to the manifest.

        FP16 files of an earlier call are removed if this one makes none: they would be those of another export.
        """
        sparse, output = bool(context.plan.pruned), context.output
        check_options(self.options, sparse)
        optimizer = find_optimizer()
        logger.info("running Paddle-Lite's optimizer for ARM ...")
        files = self.files(output, sparse=sparse)
        int8 = {f"nb_int8_{kind}": output / f"model_int8_{kind}.nb" for kind in ("dense", "sparse")[: 1 + sparse]}
        for name, path in {**files, **int8}.items():
            source = context.artefacts.get("inference_int8" if name in int8 else "inference")
            if source is None:
                continue
            options = {**self.options, "enable_fp16": str("fp16" in name).lower()}
            optimize(source, path, sparse=name.endswith("sparse"), optimizer=optimizer, options=options)
            context.artefacts[name] = path
            record(output, [path], exported_files(source))
        for path in sorted(set(output.glob("model_*_fp16.nb")) - set(files.values())):
            discard(output, path)
