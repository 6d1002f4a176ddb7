"""Runs an exported model with Paddle, as the reference for other runtimes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import paddle

from ..utils.legacy_programs import legacy_program_format


def run_exported(prefix: Path, samples: Iterable[Mapping[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
    """Runs an exported model on the CPU.

    Args:
        prefix: the model's path without `.pdmodel`.
        samples: an array for each input, with the batch dimension.

    Returns:
        The outputs of each sample by their variables.
    """
    with _static_mode(), paddle.static.scope_guard(paddle.static.Scope()):
        executor = paddle.static.Executor(paddle.CPUPlace())
        program, _, fetched = paddle.static.load_inference_model(str(prefix), executor)
        names = [variable.name for variable in fetched]
        return [dict(zip(names, executor.run(program, dict(sample), fetched))) for sample in samples]


@contextlib.contextmanager
def _static_mode() -> Iterator[None]:
    """Enters Paddle's static mode with programs in Paddle 2's format, and restores the mode afterwards."""
    was_dynamic = paddle.in_dynamic_mode()
    with legacy_program_format():
        paddle.enable_static()
        try:
            yield
        finally:
            if was_dynamic:
                paddle.disable_static()
