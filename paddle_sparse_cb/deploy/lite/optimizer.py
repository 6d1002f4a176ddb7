"""Paddle-Lite's optimizer: an exported model to the `.nb` file that a phone loads.

`paddlelite` has wheels for two versions of Python only, and none of them needs to be the one that trains. So the
optimizer is a program in a process of its own, found or made by `find_optimizer`.
"""

from __future__ import annotations

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
from ...utils.packages import Wheel, fetch_wheel
from .constraints import THRESHOLD, check_options, check_sparse
from .nb import read_nb
from .prediction import check_runs_sparse

_DIGESTS = {"3.10": "b1e6081c4154e50479426df9c7390c0d1d99dd9d832a270d1fe925894768fb62",
            "3.8": "8a42fe8737d3ade116264fd85b9f24a2bbe42095882e0a44a4ec7f0104fcc196"}
WHEELS = {python: Wheel("paddlelite", "2.13rc0", digest, 47, python) for python, digest in _DIGESTS.items()}


@dataclass(frozen=True)
class Optimizer:
    """A Paddle-Lite optimizer that answered: the command that starts it and what its environment needs."""

    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs the optimizer with arguments of its own command line."""
        return subprocess.run([*self.command, *arguments], env={**os.environ, **self.environment},
                              capture_output=True, text=True, errors="replace")


def find_optimizer() -> Optimizer:
    """Finds Paddle-Lite's optimizer, or makes it available.

    Looked for in this order: the program that `$PADDLE_LITE_OPT` names; `paddlelite` in this Python;
    `paddle_lite_opt` on PATH; a Python 3.10 or 3.8 on this machine, for which the wheel is fetched into the cache.

    Raises:
        InputError: `$PADDLE_LITE_OPT` names a program that does not work.
        PipelineError: there is none, and no Python to run one.
    """
    explicit = os.environ.get("PADDLE_LITE_OPT")
    if explicit:
        optimizer = Optimizer((explicit,))
        if not _answers(optimizer):
            raise InputError(f"PADDLE_LITE_OPT={explicit}: no Paddle-Lite optimizer that runs")
        return optimizer
    beside = Path(sys.executable).with_name("paddle_lite_opt")
    if find_spec("paddlelite") and beside.is_file() and _answers(Optimizer((sys.executable, str(beside)))):
        return Optimizer((sys.executable, str(beside)))
    on_path = shutil.which("paddle_lite_opt")
    if on_path and _answers(Optimizer((on_path,))):
        return Optimizer((on_path,))
    for version, wheel in WHEELS.items():
        for python in _interpreters(version):
            folder = fetch_wheel(wheel)
            return Optimizer((python, str(folder / "bin" / "paddle_lite_opt")), {"PYTHONPATH": str(folder)})
    raise PipelineError("Paddle-Lite's optimizer needs a Python 3.10 or 3.8 beside this one, and none was found; install "
                    "one (such as: uv python install 3.10) or name an optimizer in PADDLE_LITE_OPT, then go on with: "
                    "paddle-sparse optimize RECIPE")


def _answers(optimizer: Optimizer) -> bool:
    try:
        done = optimizer.run("--help")
        return done.returncode == 0 and "sparse_model" in done.stdout + done.stderr
    except OSError:
        return False


def _interpreters(version: str) -> Iterator[str]:
    """Pythons of a version that really run: a name on PATH may be a shim with nothing behind it."""
    name = f"python{version}"
    on_path = [Path(folder) / name for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    # Version managers keep their Pythons side by side: below their root, beside their shims, beside this very one.
    roots = [Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions",
             *(path.parent.parent / "versions" for path in on_path if path.parent.name == "shims"),
             Path(sys.base_prefix).parent, Path.home() / ".local/share/uv/python"]
    kept = [python for root in roots for python in sorted(root.glob(f"*{version}*/bin/{name}"), reverse=True)]
    seen = set()
    for python in [*kept, *on_path]:
        if python.is_file() and python.resolve() not in seen:
            seen.add(python.resolve())
            if _is_python(python, version):
                yield str(python)


def _is_python(python: Path, version: str) -> bool:
    ask = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run([str(python), "-c", ask], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and done.stdout.strip() == version


def optimize(prefix: Path, output: Path, *, sparse: bool, optimizer: Optimizer | None = None,
             options: Mapping[str, str] | None = None) -> Path:
    """Makes the `.nb` of an exported model for ARM.

    Args:
        prefix: the exported model's path without `.pdmodel`.
        output: the `.nb` to write.
        sparse: convert the 1x1 convolutions with enough zeros (`THRESHOLD`) to sparse kernels.
        optimizer: what `find_optimizer` gave.
        options: more of the optimizer's own, such as `{"enable_fp16": "true"}` for a dense file.

    Returns:
        `output`.

    Raises:
        InputError: the model or an option is one with which Paddle-Lite's sparse kernels do not work (`rules`).
        PipelineError: the optimizer failed.
    """
    options = options or {}
    check_options(options, sparse)
    if sparse:
        check_sparse(prefix)
    optimizer = optimizer or find_optimizer()
    settings = {
        "valid_targets": "arm",  # with any other target beside it nothing is made sparse
        "sparse_model": str(sparse).lower(),  # it compares with 'true': True would be ignored without a word
        "sparse_threshold": str(THRESHOLD), **options}
    with atomic_write(output) as scratch:
        done = optimizer.run(
            f"--model_file={prefix}.pdmodel", f"--param_file={prefix}.pdiparams",
            f"--optimize_out={scratch.with_suffix('')}", "--optimize_out_type=naive_buffer",
            *(f"--{name}={value}" for name, value in settings.items()))
        if done.returncode or not scratch.is_file():
            said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
            how = f"exit {done.returncode}" if done.returncode >= 0 else f"signal {-done.returncode}"
            raise PipelineError(f"Paddle-Lite's optimizer failed on {prefix}.pdmodel ({how}): "
                            f"{said[-1] if said else 'it said nothing'}")
    return output


@dataclass(frozen=True)
class Convolutions:
    """The convolutions of a `.nb`: all of them, and those with a sparse kernel."""

    total: int
    sparse: int


def count_convolutions(nb: Path) -> Convolutions:
    """Counts the convolutions in an optimized model, each as often as it is called."""
    found = [operator for operator in read_nb(nb).operators if operator.weight is not None]
    return Convolutions(len(found), sum(operator.sparse for operator in found))


@dataclass
class OptimizeLite:
    """Post-train hook: `model_dense.nb` and, if anything is pruned, `model_sparse.nb` from the same weights.

    After `QuantizeInt8` also `model_int8_dense.nb` and `model_int8_sparse.nb`. At train begin
    `SparsityCallback` asks it already whether Paddle-Lite will run what is planned.

    Attributes:
        options: of `paddle_lite_opt`, see `optimize`.
    """

    options: Mapping[str, str] = field(default_factory=dict)

    def before_training(self, plan: PrunePlan, least: Mapping[str, float]) -> None:
        """Raises InputError if Paddle-Lite would keep a planned layer dense, or an option does not go with it."""
        check_options(self.options, bool(plan.pruned))
        check_runs_sparse(plan, least)

    def __call__(self, context: HookContext) -> None:
        """Adds the artefacts `nb_dense`, `nb_sparse`, `nb_int8_dense` and `nb_int8_sparse`."""
        kinds = ("dense", "sparse") if context.plan.pruned else ("dense",)
        for kind in kinds:
            check_options(self.options, kind == "sparse")
        optimizer = find_optimizer()
        print("running Paddle-Lite's optimizer for ARM, some seconds ...", flush=True)
        for exported, prefix in (("inference", ""), ("inference_int8", "int8_")):
            for kind in kinds if exported in context.artefacts else ():
                context.artefacts[f"nb_{prefix}{kind}"] = optimize(
                    context.artefacts[exported], context.output / f"model_{prefix}{kind}.nb", sparse=kind == "sparse",
                    optimizer=optimizer, options=self.options)
