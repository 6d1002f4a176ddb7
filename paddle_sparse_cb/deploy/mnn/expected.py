"""Computes what the convolutions of an `.mnn` file should contain, from the exported model and its ONNX form."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from ..folding import FoldedParameter, fold_batch_norm
from ..onnx import OnnxLayer
from .reader import MNNConvolution


@dataclass(frozen=True)
class ExpectedConvolution:
    """What a convolution should contain.

    Attributes:
        variable: its weight in the exported program.
        rows: the output channels of the layer that it computes: all, or those of one group.
        is_linear: whether the layer's weight is [inputs, outputs].
        pairs: the weight, of shape [output channels, weights of one], and the bias. There are two if a batch norm
            follows, which MNN folds in where it can.
    """

    variable: str
    rows: slice
    is_linear: bool
    pairs: tuple[tuple[FoldedParameter, FoldedParameter], ...]

    def matches(self, stored: MNNConvolution) -> bool:
        """Returns whether weight and bias of a stored convolution are the expected ones."""
        weight = stored.weight()
        return any(
            expected.value.shape == weight.shape and expected.matches(weight) and bias.matches(stored.bias)
            for expected, bias in self.pairs
        )

    def arrange(self, weight: np.ndarray) -> np.ndarray:
        """Arranges a weight of the network as that of the convolution."""
        return _as_rows(weight, self.is_linear)[self.rows]


def find_expected(
    stored: Iterable[MNNConvolution], layers: Iterable[OnnxLayer], parameters: Mapping[str, np.ndarray]
) -> dict[str, ExpectedConvolution]:
    """Finds the layer that each convolution computes, and what it should contain.

    Args:
        stored: the convolutions of an `.mnn` file.
        layers: the layers of the ONNX model that the file was made from.
        parameters: the parameters of the exported model by variable.

    Returns:
        The convolutions that are known, by name. MNN gives new names to a few, such as the parts of a depthwise
        convolution with several filters per channel.
    """
    by_output = {output: layer for layer in layers for output in layer.outputs}
    counts: dict[str, int] = {}
    parsed = [(one.name, *_parse(one.name)) for one in stored]
    for _, output, _ in parsed:
        counts[output] = counts.get(output, 0) + 1
    found = {}
    for name, output, group in parsed:
        layer = by_output.get(output)
        if layer is not None and layer.weight in parameters:
            found[name] = _expect(layer, parameters[layer.weight], group, counts[output])
    return found


def _parse(name: str) -> tuple[str, int]:
    """Splits MNN's name of a convolution into the ONNX variable and the number of the group."""
    name = name[: -len("__matmul_converted")] if name.endswith("__matmul_converted") else name
    output, _, group = name.partition("__group__")
    return output, int(group) if re.fullmatch(r"\d{1,6}", group) else 0


def _expect(layer: OnnxLayer, weight: np.ndarray, group: int, groups: int) -> ExpectedConvolution:
    weight = _as_rows(weight, layer.is_linear)
    count = len(weight) // groups
    rows = slice(group * count, (group + 1) * count)
    bias = np.zeros(len(weight), weight.dtype) if layer.bias is None else layer.bias
    pairs = [(FoldedParameter(weight), FoldedParameter(bias))]
    if layer.norm is not None:
        pairs.append(fold_batch_norm(weight, layer.bias, layer.norm))
    return ExpectedConvolution(
        layer.weight, rows, layer.is_linear, tuple((_rows(one, rows), _rows(other, rows)) for one, other in pairs)
    )


def _as_rows(weight: np.ndarray, is_linear: bool) -> np.ndarray:
    rows = weight.reshape(len(weight), -1)  # a linear layer may have a vector as its weight
    return rows.T if is_linear else rows


def _rows(parameter: FoldedParameter, rows: slice) -> FoldedParameter:
    magnitude = None if parameter.magnitude is None else parameter.magnitude[rows]
    return FoldedParameter(parameter.value[rows], magnitude)


def group_by_variable(expected: Mapping[str, ExpectedConvolution]) -> dict[str, list[str]]:
    """Returns the names of the convolutions that use each variable."""
    groups: dict[str, list[str]] = {}
    for name, one in expected.items():
        groups.setdefault(one.variable, []).append(name)
    return groups
