"""Checks what an exported program computes: it is run beside the network that it was made from."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from ..hooks import HookContext
from ..utils.layers import eval_mode
from .outputs import Outputs, make_batches, make_noise, relative_error, run_models

# The largest error of an output over its largest magnitude. Paddle runs both with the same kernels, mostly bit for bit;
# where it sums in another order a trained PicoDet makes up to 4e-6 of it. Another attribute of an operator makes more.
MAX_ERROR = 1e-4
_SAMPLES = 2  # at most; running takes a second or two


def check_outputs(context: HookContext, names: Sequence[str]) -> dict[str, Any]:
    """Runs exported programs on the CPU, in a process of their own, and compares the outputs with the network's.

    Args:
        context: the network or, for an artefact in `context.references`, what that computes, and the samples to run on;
            without samples, noise is used.
        names: the artefacts of the exported programs.

    Returns:
        A dict with `errors`, the relative error of the outputs of each program (see `outputs.relative_error`),
        `problems` (one line each), `found`, `scope` and `ok`.

    Raises:
        InputError: a program is missing or damaged or does more than compute, or a sample does not fit its inputs.
        PipelineError: Paddle cannot run a program.
    """
    errors, problems, is_constant = {}, [], False
    for name in names:
        prefix = context.artefacts[name]
        samples = context.samples[:_SAMPLES] or make_noise(prefix, _SAMPLES)
        reference = context.references.get(name) or _calling(context.network)
        expected = _run_network(context.network, reference, make_batches(prefix, samples))
        if all(np.isfinite(array).all() for sample in expected for array in sample.values()):
            (found,) = run_models(prefix, [], samples)
            problem, errors[name] = _compare(prefix, expected, found)
        else:
            problem = [f"{prefix}.pdmodel: the network's own outputs are not finite, so nothing can be compared"]
            errors[name] = None
        problems += problem
        is_constant |= not problem and len(samples) > 1 and relative_error(expected[:1], expected[1:2]) <= MAX_ERROR
    count = f"{len(context.samples[:_SAMPLES])} samples" if context.samples else "noise"
    return {
        "errors": errors,
        "problems": problems,
        "found": f"outputs within {max(filter(None, errors.values()), default=0.0):.1e} of the network's",
        "scope": f"{' and '.join(names)} run by Paddle on {count}; relative to the largest magnitude of each output, "
        f"at most {MAX_ERROR:g}{'; the outputs hardly depend on the input' if is_constant else ''}",
        "ok": not problems,
    }


def _calling(network: paddle.nn.Layer) -> Callable[[Mapping[str, paddle.Tensor]], Any]:
    return lambda inputs: network(*inputs.values())


def _run_network(
    network: paddle.nn.Layer, reference: Callable[[Mapping[str, paddle.Tensor]], Any], batches: Outputs
) -> Outputs:
    """Returns the outputs of each sample, numbered in the order of the program's."""
    with paddle.no_grad(), eval_mode(network), _on_cpu(network):
        outputs = [
            paddle.utils.flatten(reference({name: paddle.to_tensor(array) for name, array in batch.items()}))
            for batch in batches
        ]
    # The export leaves out what is not a tensor, and a tensor that is returned again.
    unique = [{id(one): one for one in sample if isinstance(one, paddle.Tensor)}.values() for sample in outputs]
    return [{str(index): one.numpy() for index, one in enumerate(sample)} for sample in unique]


@contextlib.contextmanager
def _on_cpu(network: paddle.nn.Layer) -> Iterator[None]:
    """Moves a network to the CPU for a limited time: a GPU may round what it multiplies to TF32."""
    device = paddle.get_device()
    if device == "cpu":
        yield
        return
    paddle.set_device("cpu")
    network.to("cpu")
    try:
        yield
    finally:
        paddle.set_device(device)
        network.to(device)


def _compare(prefix: Path, expected: Outputs, found: Outputs) -> tuple[list[str], float | None]:
    """Returns what is wrong, and the relative error if it is within the limit."""
    file = f"{prefix}.pdmodel"
    if len(expected[0]) != len(found[0]):
        return [f"{file} has {len(found[0])} outputs, the network {len(expected[0])}"], None
    named = [dict(zip(expected[0], sample.values())) for sample in found]
    error = relative_error(expected, named)
    if error == float("inf"):
        return [f"{file}: outputs are not finite, or have other shapes than the network's"], None
    if error > MAX_ERROR:
        return [f"{file}: outputs differ from the network's by {error:.1e} of their magnitude"], None
    return [], error
