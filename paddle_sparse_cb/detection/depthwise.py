"""Depthwise convolutions for training on a CPU, some ten times as fast as Paddle's own.

Paddle 2.6 unrolls and multiplies each image and channel by itself there, which takes 70% of a PicoDet's training step.
The loops here are compiled by numba for the machine at hand and run on one thread: for two cores, run two processes.
"""

from __future__ import annotations

import types
from typing import Any

import numpy as np
import paddle
from numba import njit
from paddle import nn


def use_fast_depthwise(network: nn.Layer) -> int:
    """Has a network's depthwise convolutions computed here; names, weights and hooks stay what they are.

    Args:
        network: any network; convolutions with a bias, a dilation or padding of another kind are left alone.

    Returns:
        How many convolutions there are that now go faster.
    """
    layers = [layer for layer in network.sublayers() if isinstance(layer, nn.Conv2D) and _fits(layer)]
    for layer in layers:
        layer.forward = types.MethodType(_forward, layer)
    return len(layers)


def _fits(layer: nn.Conv2D) -> bool:
    padding = layer._padding
    return (layer._groups == layer._in_channels == layer._out_channels > 1 and layer.bias is None
            and isinstance(padding, int) and list(layer._dilation) == [1, 1] and layer._padding_mode == "zeros"
            and len(set(layer._stride)) == 1 and layer._data_format == "NCHW")


def _forward(layer: nn.Conv2D, image: paddle.Tensor) -> paddle.Tensor:
    if not paddle.in_dynamic_mode() or image.dtype != paddle.float32:  # an export needs Paddle's operator
        return nn.Conv2D.forward(layer, image)
    return _Depthwise.apply(image, layer.weight, int(layer._stride[0]), layer._padding)


class _Depthwise(paddle.autograd.PyLayer):
    @staticmethod
    def forward(ctx: Any, image: paddle.Tensor, weight: paddle.Tensor, stride: int, padding: int) -> paddle.Tensor:
        edge = ((0, 0), (0, 0), (padding, padding), (padding, padding))
        padded, kernel = np.pad(image.numpy(), edge), weight.numpy()[:, 0]
        ctx.kept = padded, kernel, stride, padding
        return paddle.to_tensor(_convolve(padded, kernel, stride))

    @staticmethod
    def backward(ctx: Any, gradient: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        padded, kernel, stride, padding = ctx.kept
        of_image, of_kernel = _gradients(padded, kernel, gradient.numpy(), stride)
        rows, columns = (slice(padding, size - padding) for size in padded.shape[2:])
        of_image = np.ascontiguousarray(of_image[:, :, rows, columns])
        return paddle.to_tensor(of_image), paddle.to_tensor(of_kernel[:, None])


@njit(cache=True, fastmath=True)
def _convolve(padded, kernel, stride):  # type: ignore[no-untyped-def] # numba infers them
    """Images [b, c, h, w], padded already, with kernels [c, k, l]."""
    images, channels, height, width = padded.shape
    rows, columns = kernel.shape[1:]
    out = np.zeros((images, channels, (height - rows) // stride + 1, (width - columns) // stride + 1), np.float32)
    for b in range(images):
        for c in range(channels):
            for y in range(out.shape[2]):
                to = out[b, c, y]
                for i in range(rows):
                    source = padded[b, c, y * stride + i]
                    for j in range(columns):
                        factor = kernel[c, i, j]
                        if stride == 1:
                            for x in range(to.shape[0]):
                                to[x] += factor * source[x + j]
                        else:
                            for x in range(to.shape[0]):
                                to[x] += factor * source[x * stride + j]
    return out


@njit(cache=True, fastmath=True)
def _gradients(padded, kernel, gradient, stride):  # type: ignore[no-untyped-def] # numba infers them
    """Gradients with respect to the padded images and the kernels, from that of the result."""
    of_padded, of_kernel = np.zeros_like(padded), np.zeros_like(kernel)
    for b in range(padded.shape[0]):
        for c in range(padded.shape[1]):
            for y in range(gradient.shape[2]):
                given = gradient[b, c, y]
                for i in range(kernel.shape[1]):
                    source, to = padded[b, c, y * stride + i], of_padded[b, c, y * stride + i]
                    for j in range(kernel.shape[2]):
                        factor, total = kernel[c, i, j], np.float32(0)
                        if stride == 1:
                            for x in range(given.shape[0]):
                                to[x + j] += factor * given[x]
                                total += given[x] * source[x + j]
                        else:
                            for x in range(given.shape[0]):
                                to[x * stride + j] += factor * given[x]
                                total += given[x] * source[x * stride + j]
                        of_kernel[c, i, j] += total
    return of_padded, of_kernel
