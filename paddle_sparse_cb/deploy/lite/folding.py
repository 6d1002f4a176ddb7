"""Computes the parameters that Paddle-Lite's optimizer should have made from an exported model.

The optimizer folds the batch norm that follows a convolution into the convolution's weight and the norm's bias
(Paddle-Lite 2.13: lite/core/optimizer/mir/fusion/conv_bn_fuser.cc). All other parameters keep their values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...utils.weight_files import load_parameters, parse_program
from ..folding import BatchNorm, FoldedParameter, fold_batch_norm
from ..program import slot_arguments

_CONVOLUTIONS = ("conv2d", "depthwise_conv2d")


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
    scale, shift, mean, variance = (parameters[names[slot][0]] for slot in ("Scale", "Bias", "Mean", "Variance"))
    epsilon = next(attribute.f for attribute in norm.attrs if attribute.name == "epsilon")
    weight_name = slot_arguments(convolution.inputs)["Filter"][0]
    weight, bias = fold_batch_norm(parameters[weight_name], None, BatchNorm(scale, shift, mean, variance, epsilon))
    return {weight_name: weight, names["Bias"][0]: bias}
