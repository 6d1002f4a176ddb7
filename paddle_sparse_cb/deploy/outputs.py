"""Runs exported models, and the MNN models that were made from them, in a process of their own; compares outputs."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from .executor import run_exported
from .isolated import run_isolated
from .mnn.reader import read_mnn
from .mnn.runtime import MNNModel
from .program import check_no_side_effects, read_input_types, read_inputs

Outputs = list[dict[str, np.ndarray]]  # of each sample, by name

_RUN = """
from pathlib import Path
import numpy as np
from paddle_sparse_cb.deploy.outputs import run_all
run_all(*map(Path, sys.argv[1:]))
"""


def run_models(prefix: Path, files: Sequence[Path], samples: Sequence[Mapping[str, np.ndarray]]) -> list[Outputs]:
    """Runs an exported model with Paddle, and `.mnn` files with MNN, in a process of its own.

    Native code may end the process if a file is damaged.

    Args:
        prefix: the exported model's path without `.pdmodel`.
        files: `.mnn` files; none to run the exported model alone.
        samples: inputs without the batch dimension; those that the exported model does not have are left out.

    Returns:
        The outputs of Paddle, followed by those of each file, by the variables of the exported model.

    Raises:
        InputError: the program does more than compute, or a sample lacks an input, or one has another shape or dtype
            than the program's, or is not finite.
        PipelineError: the process ended with an error.
    """
    check_no_side_effects(prefix)
    batches = make_batches(prefix, samples)
    with tempfile.TemporaryDirectory() as folder:
        inputs, outputs = Path(folder, "inputs.npz"), Path(folder, "outputs.npz")
        _save(inputs, [batches])
        names = ", ".join(path.name for path in files) or f"{prefix.name}.pdmodel"
        run_isolated(f"running {names}", _RUN, [prefix, inputs, outputs, *files], expected=outputs)
        return _load(outputs)


def make_batches(prefix: Path, samples: Sequence[Mapping[str, np.ndarray]]) -> Outputs:
    """Returns the inputs of an exported model, in its order and with the batch dimension, for each sample.

    Raises:
        InputError: see `run_models`.
    """
    shapes, types, batches = read_inputs(prefix), read_input_types(prefix), []
    for index, sample in enumerate(samples):
        arrays = {}
        for name, shape in shapes.items():
            if name not in sample:
                raise InputError(
                    f"sample {index} has no input {name!r}; the inputs of {prefix.name} are {list(shapes)}"
                )
            array = np.asarray(sample[name])[None]
            if (array.shape, array.dtype) != (shape, types[name]):
                raise InputError(
                    f"sample {index}: input {name!r} must be {types[name]} of shape {list(shape[1:])}, got "
                    f"{array.dtype} of shape {list(array.shape[1:])}"
                )
            if not np.isfinite(array).all():
                raise InputError(f"sample {index}: input {name!r} has values that are not finite")
            arrays[name] = array
        batches.append(arrays)
    return batches


def run_all(prefix: Path, inputs: Path, outputs: Path, *files: Path) -> None:
    """Runs in the process that `run_models` starts: reads the samples from a file and writes the outputs to another."""
    (samples,) = _load(inputs)
    expected = run_exported(prefix, samples)
    _save(outputs, [expected, *(_run(path, samples, list(expected[0])) for path in files)])


def _run(path: Path, samples: Outputs, names: list[str]) -> Outputs:
    """Runs an `.mnn` file; its outputs are in the order of the exported model's, but may have other names."""
    model, own_names = MNNModel(path), read_mnn(path).outputs
    found = [model.run(sample) for sample in samples]
    return [{name: outputs[own] for name, own in zip(names, own_names) if own in outputs} for outputs in found]


def _save(path: Path, runs: Sequence[Sequence[Mapping[str, np.ndarray]]]) -> None:
    keyed = {
        json.dumps([run, index, name]): array
        for run, samples in enumerate(runs)
        for index, sample in enumerate(samples)
        for name, array in sample.items()
    }
    np.savez(path, **keyed)


def _load(path: Path) -> list[Outputs]:
    runs: list[Outputs] = []
    with np.load(path) as arrays:
        for key in arrays.files:
            run, index, name = json.loads(key)
            runs += [[] for _ in range(run + 1 - len(runs))]
            runs[run] += [{} for _ in range(index + 1 - len(runs[run]))]
            runs[run][index][name] = arrays[key]
    return runs


def relative_error(expected: Outputs, found: Outputs) -> float:
    """Returns the largest error of any output over the largest magnitude of that output in all samples.

    Infinite if an output is missing, has another shape or is not finite.
    """
    worst = 0.0
    for name in expected[0]:
        pairs = [(one[name], other.get(name, np.zeros(0))) for one, other in zip(expected, found)]
        if len(expected) != len(found) or any(one.shape != other.shape for one, other in pairs):
            return float("inf")
        largest = max(float(np.abs(one).max(initial=0)) for one, _ in pairs)
        error = max(float(np.abs(one.astype(np.float64) - other).max(initial=0)) for one, other in pairs)
        if not np.isfinite(error) or not np.isfinite(largest):
            return float("inf")
        worst = max(worst, error / max(largest, float(np.finfo(np.float32).tiny)))
    return worst


def make_noise(prefix: Path, count: int = 2) -> list[dict[str, np.ndarray]]:
    """Returns samples for the inputs of an exported model: normal noise, and zeros and ones for integers.

    Raises:
        InputError: an input has a dynamic dimension.
    """
    shapes, types, random = read_inputs(prefix), read_input_types(prefix), np.random.RandomState(0)
    for name, shape in shapes.items():
        if any(size < 1 for size in shape):
            raise InputError(f"{prefix}.pdmodel: input {name!r} has shape {list(shape)}; every dimension must be fixed")
    return [{name: _noise(random, shape[1:], types[name]) for name, shape in shapes.items()} for _ in range(count)]


def _noise(random: np.random.RandomState, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    values = random.standard_normal(shape) if dtype.kind == "f" else random.randint(0, 2, shape)
    return np.asarray(values).astype(dtype)
