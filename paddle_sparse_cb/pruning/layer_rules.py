"""Which layers can be pruned, and which layers Paddle-Lite and MNN run sparse.

The conditions of Paddle-Lite are those of lite/core/optimizer/mir/sparse_conv_detect_pass.cc; those of MNN are
described in deploy/mnn/constraints.py.
"""

from __future__ import annotations

from typing import Any

import paddle
from paddle import nn

# Whether squeeze-and-excitation is pruned where a recipe or a call does not say.
PRUNE_SQUEEZE_EXCITE = False

CONVOLUTIONS_AND_LINEAR = (
    nn.Conv1D,
    nn.Conv2D,
    nn.Conv3D,
    nn.Conv1DTranspose,
    nn.Conv2DTranspose,
    nn.Conv3DTranspose,
    nn.Linear,
)


def unprunable_reason(layer: nn.Layer, weight: paddle.Tensor) -> str:
    """Returns why a weight cannot be pruned: not a convolution or linear layer, or depthwise; empty if it can."""
    if not isinstance(layer, CONVOLUTIONS_AND_LINEAR):
        return f"not a convolution or linear layer ({type(layer).__name__})"
    if getattr(layer, "_groups", 1) > 1 and weight.shape[1] == 1:
        return "depthwise"
    return "single weight" if weight.size == 1 else ""


def conv1x1_reason(layer: nn.Layer, weight: paddle.Tensor) -> str:
    """Returns which of Paddle-Lite's conditions for a sparse convolution a layer fails; empty if it meets all."""
    if not isinstance(layer, nn.Conv2D):
        return f"not a 2D convolution ({type(layer).__name__})"
    kernel = weight.shape[2:]
    if list(kernel) != [1, 1]:
        return f"{kernel[0]}x{kernel[1]} kernel"
    if layer._groups != 1:
        return f"{layer._groups} groups"
    strides = as_pair(layer._stride)
    if any(stride != 1 for stride in strides):
        return f"stride {strides[0] if strides[0] == strides[1] else strides}"
    padding = layer._updated_padding if hasattr(layer, "_updated_padding") else layer._padding
    if not isinstance(padding, str) and any(as_pair(padding)):
        return f"padding {padding}"
    if layer._data_format != "NCHW":
        return f"{layer._data_format} layout"
    return "single weight" if weight.size == 1 else ""


def mnn_reason(layer: nn.Layer, weight: paddle.Tensor) -> str:
    """Returns why MNN would run a layer dense however many zeros it has; empty if it would not."""
    if not isinstance(layer, (nn.Conv1D, nn.Conv2D, nn.Linear)):
        return f"not a convolution or linear layer that MNN runs sparse ({type(layer).__name__})"
    return unprunable_reason(layer, weight)


def as_pair(value: Any) -> list[int]:
    """Returns a size that is given once or for each direction as a list."""
    return list(value) if isinstance(value, (list, tuple)) else [value, value]
