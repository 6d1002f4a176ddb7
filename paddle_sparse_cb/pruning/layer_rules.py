"""What a layer is, and whether Paddle-Lite may run it sparse.

The conditions are those of lite/core/optimizer/mir/sparse_conv_detect_pass.cc.
"""

from __future__ import annotations

from typing import Any

import paddle
from paddle import nn

CONVOLUTIONS_AND_LINEAR = (nn.Conv1D, nn.Conv2D, nn.Conv3D, nn.Conv1DTranspose, nn.Conv2DTranspose,
                           nn.Conv3DTranspose, nn.Linear)


def why_not_prunable(layer: nn.Layer, weight: paddle.Tensor) -> str:
    """Why a weight is none of a convolution or linear layer, depthwise ones left out; empty if it is."""
    if not isinstance(layer, CONVOLUTIONS_AND_LINEAR):
        return f"no convolution or linear layer ({type(layer).__name__})"
    if getattr(layer, "_groups", 1) > 1 and weight.shape[1] == 1:
        return "depthwise"
    return "a single weight" if weight.size == 1 else ""


def why_not_conv1x1(layer: nn.Layer, weight: paddle.Tensor) -> str:
    """Which of Paddle-Lite's conditions the layer itself fails; empty if none."""
    if not isinstance(layer, nn.Conv2D):
        return f"no 2D convolution ({type(layer).__name__})"
    kernel = weight.shape[2:]
    if list(kernel) != [1, 1]:
        return f"{kernel[0]}x{kernel[1]} kernel"
    if layer._groups != 1:
        return f"{layer._groups} groups"
    strides = pair(layer._stride)
    if any(stride != 1 for stride in strides):
        return f"stride {strides[0] if strides[0] == strides[1] else strides}"
    padding = layer._updated_padding if hasattr(layer, "_updated_padding") else layer._padding
    if not isinstance(padding, str) and any(pair(padding)):
        return f"padding {padding}"
    if layer._data_format != "NCHW":
        return f"{layer._data_format} layout"
    return "a single weight" if weight.size == 1 else ""


def pair(value: Any) -> list[int]:
    """A size that is given once or for both directions."""
    return list(value) if isinstance(value, (list, tuple)) else [value, value]
