"""Computes the parameters that a converter should have made from those of an exported model.

Paddle-Lite and MNN multiply the weight of a convolution by the scale of the batch norm that follows, and add the shift
that remains to the bias. The same is computed here in float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Relative errors above float32's rounding and far below what a changed weight or statistic makes.
_TOLERANCE = 1e-5


@dataclass(frozen=True)
class FoldedParameter:
    """The value that a parameter should have in a converted file.

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


@dataclass(frozen=True)
class BatchNorm:
    """The parameters of a batch norm, each with one value per channel, and its epsilon."""

    scale: np.ndarray
    shift: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    epsilon: float


def fold_batch_norm(
    weight: np.ndarray, bias: np.ndarray | None, norm: BatchNorm
) -> tuple[FoldedParameter, FoldedParameter]:
    """Folds a batch norm into the convolution or linear layer before it.

    Args:
        weight: [output channels, ...].
        bias: [output channels]; None for a layer without bias.
        norm: the batch norm that reads the layer's output.

    Returns:
        The weight and the bias of the folded layer.
    """
    scale, shift, mean, variance = (
        array.astype(np.float64) for array in (norm.scale, norm.shift, norm.mean, norm.variance)
    )
    factor = scale / np.sqrt(variance + norm.epsilon)
    offset = (0 if bias is None else bias.astype(np.float64)) - mean
    folded = weight.astype(np.float64) * factor.reshape(-1, *[1] * (weight.ndim - 1))
    magnitude = np.abs(shift) + np.abs(mean * factor) + (0 if bias is None else np.abs(bias * factor))
    return FoldedParameter(folded, np.abs(folded)), FoldedParameter(shift + offset * factor, magnitude)
