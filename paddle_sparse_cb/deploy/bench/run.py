"""Loads models into runtimes, measures them together, and makes rows of the results."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import numpy as np

from ...errors import InputError
from .engines import PADDLE, Engine, Session, load, make_inputs
from .machine import advice, this_machine
from .rows import Row, compare
from .timing import Case, measure

_MAX_DIFFERENCE = 0.01  # relative, of outputs in FP32; the rounding of an untrained detector is amplified to 5e-4


@dataclass(frozen=True)
class Candidate:
    """A model in a file, and the runtime that is to be measured on it.

    Attributes:
        engine: the runtime.
        path: the model's file.
        kind: `dense` or `sparse`: the kernels that compute the pruned layers.
        ratio: fraction of zeros in the weights that may be pruned; None if unknown.
        block: rows and columns of the blocks of zeros.
        reference: the `.pdmodel` file of the same weights, with which the outputs are compared.
        is_trained: whether its mAP means something.
        note: what a reader must know about it.
        label: the file's name for the table; empty where runtime and kind tell the models apart.
    """

    engine: Engine
    path: Path
    kind: str
    ratio: float | None
    block: tuple[int, int] = (1, 1)
    reference: Path | None = None
    is_trained: bool = False
    note: str = ""
    label: str = ""


@dataclass(frozen=True)
class BenchOptions:
    """How candidates are measured.

    Attributes:
        threads: the numbers of threads, each measured.
        seconds: wall time to spend on the measurement; see `timing.measure`.
        evaluate: returns the mAP of a loaded model, as a fraction; None leaves mAP out.
        log: receives a line for each step.
    """

    threads: Sequence[int] = (1,)
    seconds: float = 30.0
    evaluate: Callable[[Session], float] | None = None
    log: Callable[[str], None] = lambda line: None


def measure_rows(candidates: Sequence[Candidate], options: BenchOptions) -> list[Row]:
    """Measures candidates on this machine in one run.

    Args:
        candidates: what to measure; runtimes that are not installed have been left out.
        options: how.

    Returns:
        A row for each candidate and number of threads, without speed-ups.

    Raises:
        InputError: a runtime cannot load a file.
    """
    options.log(f"loading {len(candidates)} models ...")
    loaded = [(one, threads, load(one.engine, one.path, threads)) for threads in options.threads for one in candidates]
    inputs = [make_inputs(session.inputs, one.path) for one, _, session in loaded]
    differences = _differences(loaded, inputs)
    cases = [
        Case(lambda session=session, arrays=arrays: session.run(arrays), threads)  # type: ignore[misc]
        for (_, threads, session), arrays in zip(loaded, inputs)
    ]
    options.log(f"measuring {len(cases)} cases for {options.seconds:.0f} s, more if the machine is busy ...")
    timings = measure(cases, options.seconds)
    scores = _scores(loaded, options)
    return [
        Row(
            runtime=one.engine.name,
            version=one.engine.version or "",
            kind=one.kind,
            ratio=one.ratio,
            block=one.block,
            precision="FP32",
            threads=threads,
            mb=model_bytes(one.engine, one.path) / 1e6,
            ms=timing.ms,
            spread=timing.spread,
            map=scores.get(one),
            trained=one.is_trained,
            disturbed=timing.disturbed,
            note="; ".join(filter(None, [one.note, differences.get(one)])),
            file=one.label,
            group=str(sorted((name, array.shape) for name, array in arrays.items())),
        )
        for (one, threads, _), arrays, timing in zip(loaded, inputs, timings)
    ]


def make_result(rows: Sequence[Row], notes: Sequence[str] = ()) -> dict[str, Any]:
    """Compares rows of one run, from this machine and from devices.

    Args:
        rows: the rows.
        notes: what a reader must know.

    Returns:
        `machine`, `rows` and `notes`, plain values that can be saved as JSON (see `Machine`, `Row` and `advice`).
    """
    machine = this_machine()
    return {
        "machine": machine.to_dict(),
        "rows": [row.to_dict() for row in compare(rows)],
        "notes": [*notes, *advice(machine, here=any(not row.device for row in rows))],
    }


def _differences(
    loaded: Sequence[tuple[Candidate, int, Session]], inputs: Sequence[dict[str, np.ndarray]]
) -> dict[Candidate, str]:
    """Runs each model once and compares its outputs with Paddle's, where those can be computed."""
    expected: dict[Path, dict[str, np.ndarray]] = {}
    notes = {}
    for (one, _, session), arrays in zip(loaded, inputs):
        if one.reference is None:
            continue
        if one.reference not in expected:
            expected[one.reference] = load(PADDLE, one.reference, 1).run(arrays)
        difference = relative_difference(session.run(arrays), expected[one.reference])
        if not difference <= _MAX_DIFFERENCE:
            notes[one] = f"OUTPUTS DIFFER from Paddle's by {difference:.1%}"
    return notes


def relative_difference(outputs: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> float:
    """Returns the largest relative difference of an output, in the L2 norm; infinite if the shapes differ.

    Args:
        outputs: outputs of a runtime by name.
        expected: the outputs that they should be.

    Examples:
        >>> relative_difference({"a": np.array([3.0, 4.5])}, {"a": np.array([3.0, 4.0])})
        0.1
    """
    if outputs.keys() != expected.keys() or any(outputs[name].shape != expected[name].shape for name in expected):
        return float("inf")
    differences = [
        np.linalg.norm(outputs[name] - value) / max(float(np.linalg.norm(value)), 1e-30)
        for name, value in expected.items()
    ]
    return float(np.max(differences))  # NaN if one is, unlike Python's max


def _scores(loaded: Sequence[tuple[Candidate, int, Session]], options: BenchOptions) -> dict[Candidate, float]:
    """Evaluates each trained model once, on the largest number of threads."""
    scores = {}
    for one, threads, session in loaded:
        if options.evaluate is not None and one.is_trained and threads == max(options.threads):
            options.log(f"evaluating {one.kind} on {one.engine.name} ...")
            score = options.evaluate(session)
            if math.isfinite(score):  # NaN where the images have no objects
                scores[one] = score
    return scores


def model_bytes(engine: Engine, path: Path) -> int:
    """Returns the size of a model's files in bytes."""
    files = [path, path.with_suffix(".pdiparams")] if engine is PADDLE else [path]
    return sum(file.stat().st_size for file in files)


def check_threads(threads: Sequence[int], cores: int) -> None:
    """Checks numbers of threads.

    Raises:
        InputError: a number is not between 1 and the number of CPUs.
    """
    for number in threads:
        if not 1 <= number <= cores:
            raise InputError(f"--threads must be between 1 and the {cores} CPUs of this machine, got {number}")
