"""Depthwise convolutions for training on a CPU, several times as fast as Paddle's.

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
from paddle.utils import dlpack


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
        and padding < min(layer._kernel_size)
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
        pixels, kernel = _view(image), weight.numpy()[:, 0]
        ctx.save_for_backward(image)
        ctx.saved = pixels, kernel, stride, padding, image.inplace_version
        return paddle.to_tensor(_convolve(pixels, kernel, stride, padding))

    @staticmethod
    def backward(ctx: Any, gradient: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        pixels, kernel, stride, padding, version = ctx.saved
        (image,) = ctx.saved_tensor()
        if image.inplace_version != version:  # `pixels` is a view
            raise RuntimeError("an operation changed the input of a depthwise convolution in place after its forward")
        of_image, of_kernel = _gradients(pixels, kernel, _view(gradient), stride, padding)
        return paddle.to_tensor(of_image), paddle.to_tensor(of_kernel[:, None])


class _Exporter:
    """Gives numpy the memory of a Paddle tensor, which does not have the methods of the DLPack protocol itself."""

    def __init__(self, tensor: paddle.Tensor):
        self._tensor = tensor

    def __dlpack__(self, stream: None = None) -> Any:
        return dlpack.to_dlpack(self._tensor)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)  # the CPU


def _view(tensor: paddle.Tensor) -> np.ndarray:
    """Returns a read-only view of a CPU tensor; `Tensor.numpy` would copy it."""
    return np.from_dlpack(_Exporter(tensor))


# The loops go over planes: one channel of one image with its padding, in one row after another. A filter tap is a
# constant offset in a plane, so that the innermost loop runs over all rows at once and is long enough for vector
# instructions even on maps of 6x6. The sums that span two rows belong to no output and are not read. Strides are
# computed as stride 1, of which only every second output is read: a network has few of them.


@njit(cache=True, fastmath=True)
def _convolve(images, kernels, stride, padding):  # type: ignore[no-untyped-def] # numba infers them
    """Convolves images [b, c, h, w] with kernels [c, k, l]."""
    count, channels, height, width = images.shape
    rows, columns = kernels.shape[1:]
    pitch, used = width + 2 * padding, height + 2 * padding - rows + 1
    shape = (used - 1) // stride + 1, (pitch - columns) // stride + 1
    out = np.empty((count, channels, *shape), np.float32)
    plane, sums = _new_plane(height + 2 * padding, pitch, columns), np.empty(used * pitch, np.float32)
    for b in range(count):
        for c in range(channels):
            _fill(plane, images[b, c], pitch, padding, 1)
            _correlate(plane, kernels[c], pitch, sums)
            _read(sums, out[b, c], pitch, stride)
    return out


@njit(cache=True, fastmath=True)
def _gradients(images, kernels, gradient, stride, padding):  # type: ignore[no-untyped-def] # numba infers them
    """Computes the gradients of the images and of the kernels from the gradient of the output."""
    count, channels, height, width = images.shape
    rows, columns = kernels.shape[1:]
    pitch, used = width + 2 * padding, height + 2 * padding - rows + 1
    plane, outputs = _new_plane(height + 2 * padding, pitch, columns), np.zeros(used * pitch, np.float32)
    # The gradient of the image is the correlation of the padded gradient with the kernel turned by 180 degrees.
    wide, above, left = width + columns - 1, rows - 1 - padding, columns - 1 - padding
    padded, sums = _new_plane(height + rows - 1, wide, columns), np.empty(height * wide, np.float32)
    of_images, of_kernels = np.empty_like(images), np.zeros_like(kernels)
    for c in range(channels):
        turned = np.ascontiguousarray(kernels[c, ::-1, ::-1])
        for b in range(count):
            _fill(padded[above * wide + left :], gradient[b, c], wide, 0, stride)
            _correlate(padded, turned, wide, sums)
            _read(sums, of_images[b, c], wide, 1)
            _fill(plane, images[b, c], pitch, padding, 1)
            _fill(outputs, gradient[b, c], pitch, 0, stride)
            for i in range(rows):
                for j in range(columns):
                    source, total = plane[i * pitch + j :], np.float32(0)
                    for x in range(outputs.size):
                        total += outputs[x] * source[x]
                    of_kernels[c, i, j] += total
    return of_images, of_kernels


@njit(cache=True)
def _new_plane(height, pitch, columns):  # type: ignore[no-untyped-def]
    return np.zeros(height * pitch + columns, np.float32)  # the last sums, which are not read, reach beyond the plane


@njit(cache=True)
def _fill(plane, values, pitch, padding, step):  # type: ignore[no-untyped-def]
    """Writes a map [h, w] into a plane; `step` is the distance between two values, with zeros in between."""
    for y in range(values.shape[0]):
        begin = (y * step + padding) * pitch + padding
        for x in range(values.shape[1]):
            plane[begin + x * step] = values[y, x]


@njit(cache=True)
def _read(sums, out, pitch, stride):  # type: ignore[no-untyped-def]
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            out[y, x] = sums[y * stride * pitch + x * stride]


@njit(cache=True, fastmath=True)
def _correlate(plane, kernel, pitch, sums):  # type: ignore[no-untyped-def]
    """Computes the sums of a kernel at each place of a plane; one pass for each kernel row of 3 or 5 values."""
    rows, columns = kernel.shape
    sums[:] = 0
    for i in range(rows):
        source = plane[i * pitch :]
        if columns == 3:
            a, b, c = kernel[i, 0], kernel[i, 1], kernel[i, 2]
            for x in range(sums.size):
                sums[x] += a * source[x] + b * source[x + 1] + c * source[x + 2]
        elif columns == 5:
            a, b, c, d, e = kernel[i, 0], kernel[i, 1], kernel[i, 2], kernel[i, 3], kernel[i, 4]
            for x in range(sums.size):
                sums[x] += a * source[x] + b * source[x + 1] + c * source[x + 2] + d * source[x + 3] + e * source[x + 4]
        else:
            for j in range(columns):
                for x in range(sums.size):
                    sums[x] += kernel[i, j] * source[x + j]
