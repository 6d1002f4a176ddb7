"""Depthwise convolutions for training on a CPU, about ten times as fast as Paddle's.

On CPUs Paddle 2.6 unrolls and multiplies each image and channel separately, which takes 70% of a PicoDet's training
step. The loops in this module are compiled by numba for the present CPU and run on one thread: to use two cores, run
two processes.
"""

from __future__ import annotations

import types
from typing import Any

import numpy as np
import paddle
from numba import njit
from paddle import nn


def use_fast_depthwise(network: nn.Layer) -> int:
    """Replaces the computation of a network's depthwise convolutions; names, weights and hooks do not change.

    Args:
        network: any network. Convolutions with a bias, dilation or other padding than zeros keep Paddle's computation.

    Returns:
        The number of replaced convolutions.
    """
    layers = [layer for layer in network.sublayers() if isinstance(layer, nn.Conv2D) and _fits(layer)]
    for layer in layers:
        layer.forward = types.MethodType(_forward, layer)
    return len(layers)


def _fits(layer: nn.Conv2D) -> bool:
    padding = layer._padding
    return (
        layer._groups == layer._in_channels == layer._out_channels > 1
        and layer.bias is None
        and isinstance(padding, int)
        and list(layer._dilation) == [1, 1]
        and layer._padding_mode == "zeros"
        and len(set(layer._stride)) == 1
        and layer._data_format == "NCHW"
    )


def _forward(layer: nn.Conv2D, image: paddle.Tensor) -> paddle.Tensor:
    if not paddle.in_dynamic_mode() or image.dtype != paddle.float32:  # the exported program needs Paddle's operator
        return nn.Conv2D.forward(layer, image)
    return _Depthwise.apply(image, layer.weight, int(layer._stride[0]), layer._padding)


class _Depthwise(paddle.autograd.PyLayer):
    @staticmethod
    def forward(ctx: Any, image: paddle.Tensor, weight: paddle.Tensor, stride: int, padding: int) -> paddle.Tensor:
        edge = ((0, 0), (0, 0), (padding, padding), (padding, padding))
        padded, kernel = np.pad(image.numpy(), edge), weight.numpy()[:, 0]
        ctx.saved = padded, kernel, stride, padding
        return paddle.to_tensor(_convolve(padded, kernel, stride))

    @staticmethod
    def backward(ctx: Any, gradient: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        padded, kernel, stride, padding = ctx.saved
        of_image, of_kernel = _gradients(padded, kernel, gradient.numpy(), stride)
        rows, columns = (slice(padding, size - padding) for size in padded.shape[2:])
        of_image = np.ascontiguousarray(of_image[:, :, rows, columns])
        return paddle.to_tensor(of_image), paddle.to_tensor(of_kernel[:, None])


@njit(cache=True, fastmath=True)
def _convolve(padded, kernel, stride):  # type: ignore[no-untyped-def] # numba infers them
    """Convolves padded images [b, c, h, w] with kernels [c, k, l]."""
    images, channels, height, width = padded.shape
    rows, columns = kernel.shape[1:]
    out = np.zeros((images, channels, (height - rows) // stride + 1, (width - columns) // stride + 1), np.float32)
    for b in range(images):
        for c in range(channels):
            for y in range(out.shape[2]):
                row = out[b, c, y]
                for i in range(rows):
                    source = padded[b, c, y * stride + i]
                    for j in range(columns):
                        factor = kernel[c, i, j]
                        if stride == 1:
                            for x in range(row.shape[0]):
                                row[x] += factor * source[x + j]
                        else:
                            for x in range(row.shape[0]):
                                row[x] += factor * source[x * stride + j]
    return out


@njit(cache=True, fastmath=True)
def _gradients(padded, kernel, gradient, stride):  # type: ignore[no-untyped-def] # numba infers them
    """Computes the gradients of the padded images and of the kernels from the gradient of the output."""
    of_padded, of_kernel = np.zeros_like(padded), np.zeros_like(kernel)
    for b in range(padded.shape[0]):
        for c in range(padded.shape[1]):
            for y in range(gradient.shape[2]):
                gradient_row = gradient[b, c, y]
                for i in range(kernel.shape[1]):
                    row, of_row = padded[b, c, y * stride + i], of_padded[b, c, y * stride + i]
                    for j in range(kernel.shape[2]):
                        factor, total = kernel[c, i, j], np.float32(0)
                        if stride == 1:
                            for x in range(gradient_row.shape[0]):
                                of_row[x + j] += factor * gradient_row[x]
                                total += gradient_row[x] * row[x + j]
                        else:
                            for x in range(gradient_row.shape[0]):
                                of_row[x * stride + j] += factor * gradient_row[x]
                                total += gradient_row[x] * row[x * stride + j]
                        of_kernel[c, i, j] += total
    return of_padded, of_kernel
