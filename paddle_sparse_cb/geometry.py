"""What a layer is, and what Paddle-Lite makes of it: which convolutions it runs sparse, and which it merges.

The conditions on one convolution are those of lite/core/optimizer/mir/sparse_conv_detect_pass.cc; what
is merged before it looks is decided in fusion/conv_conv_fuser.cc.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import paddle
from paddle import nn

CONVOLUTIONS_AND_LINEAR = (nn.Conv1D, nn.Conv2D, nn.Conv3D, nn.Conv1DTranspose, nn.Conv2DTranspose,
                           nn.Conv3DTranspose, nn.Linear)


def why_not_any(layer: nn.Layer, weight: paddle.Tensor) -> str:
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


def merging(pairs: Iterable[tuple[nn.Conv2D, nn.Conv2D]]) -> list[tuple[nn.Conv2D, nn.Conv2D]]:
    """Which of the neighbours Paddle-Lite multiplies into one dense convolution before it looks for sparse ones.

    A bias of the first is an addition between the two. One pair that is worth it is enough: the pattern then takes
    every pair of the network.

    Args:
        pairs: two convolutions each, the second reading what the first gives with at most a batch norm between.
    """
    fitting = [(first, second) for first, second in pairs
               if first.bias is None and second._groups == 1 and not why_not_any(first, first.weight)]
    return fitting if any(_worth_merging(first, second) for first, second in fitting) else []


def _worth_merging(first: nn.Conv2D, second: nn.Conv2D) -> bool:
    if list(second.weight.shape[2:]) != [1, 1] or first._groups != 1:
        return False
    middle, before, after = first.weight.shape[0], first.weight.shape[1], second.weight.shape[0]
    return 0 < before * (after - middle) <= middle * after


def pair(value: Any) -> list[int]:
    """A size that is given once or for both directions."""
    return list(value) if isinstance(value, (list, tuple)) else [value, value]
