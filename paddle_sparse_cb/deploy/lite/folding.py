"""Computes the parameters that Paddle-Lite's optimizer should have made from an exported model.

The optimizer multiplies the weight of a convolution by the scale of the batch norm that follows, and replaces the
norm's bias by the shift that remains (Paddle-Lite 2.13: lite/core/optimizer/mir/fusion/conv_bn_fuser.cc). All other
parameters keep their values. The same is computed here from the exported model, in float64.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...utils.weight_files import load_parameters, parse_program
from ..program import slot_arguments

_CONVOLUTIONS = ("conv2d", "depthwise_conv2d")
# Relative errors above float32's rounding and far below what a changed weight or statistic makes.
_TOLERANCE = 1e-5


@dataclass(frozen=True)
class FoldedParameter:
    """The value that a parameter should have in a `.nb` file.

    Attributes:
        value: the value, in float64 if it was computed.
        magnitude: the size of the terms that it was computed from, for the rounding error; None if it is a copy.
    """

    value: np.ndarray
    magnitude: np.ndarray | None = None

    def matches(self, stored: np.ndarray) -> bool:
        """Returns whether a stored value is this one: bit for bit if it is a copy, else within rounding errors."""
        if stored.size != self.value.size:
            return False
        stored = stored.reshape(self.value.shape)
        if self.magnitude is None:
            return stored.tobytes() == np.ascontiguousarray(self.value, stored.dtype).tobytes()
        error = np.abs(stored - self.value)
        return bool((error <= _TOLERANCE * self.magnitude + np.finfo(np.float32).tiny).all())  # False for NaN


def fold_parameters(prefix: Path) -> dict[str, FoldedParameter]:
    """Computes the parameters of the optimized model by their variables.

    Args:
        prefix: the exported model's path without `.pdmodel`.

    Returns:
        The parameters that are known. A parameter that a batch norm behind anything but a convolution with one reader
        changes is left out.

    Raises:
        InputError: a file is missing or damaged.
    """
    parameters = load_parameters(prefix)
    block = parse_program(prefix).blocks[0]
    folded = {name: FoldedParameter(array) for name, array in parameters.items()}
    for convolution, norm in _convolutions_with_norm(block, parameters):
        folded.update(_fold(convolution, norm, parameters))
    return folded


def _convolutions_with_norm(block: Any, parameters: dict[str, np.ndarray]) -> Iterator[tuple[Any, Any]]:
    """Yields each convolution whose only reader is a batch norm, with the norm."""
    readers = Counter(name for op in block.ops for names in slot_arguments(op.inputs).values() for name in names)
    norms = {slot_arguments(op.inputs)["X"][0]: op for op in block.ops if op.type == "batch_norm"}
    for op in block.ops:
        if op.type in _CONVOLUTIONS:
            output, weight = slot_arguments(op.outputs)["Output"][0], slot_arguments(op.inputs)["Filter"][0]
            if output in norms and readers[output] == 1 and readers[weight] == 1 and weight in parameters:
                yield op, norms[output]


def _fold(convolution: Any, norm: Any, parameters: dict[str, np.ndarray]) -> dict[str, FoldedParameter]:
    names = slot_arguments(norm.inputs)
    scale, bias, mean, variance = (
        parameters[names[slot][0]].astype(np.float64) for slot in ("Scale", "Bias", "Mean", "Variance")
    )
    epsilon = next(attribute.f for attribute in norm.attrs if attribute.name == "epsilon")
    factor = scale / np.sqrt(variance + epsilon)
    weight_name = slot_arguments(convolution.inputs)["Filter"][0]
    weight = parameters[weight_name].astype(np.float64) * factor.reshape(-1, 1, 1, 1)
    return {
        weight_name: FoldedParameter(weight, np.abs(weight)),
        names["Bias"][0]: FoldedParameter(bias - mean * factor, np.abs(bias) + np.abs(mean * factor)),
    }
