"""Compares single operators in Paddle, in MNN on this machine, and in MNN on an emulated ARM processor.

Each network has all operators as parallel branches of one input, so that few conversions are needed. Some sizes are odd
and some square, and numbers of channels are no multiples of four: that is where kernels have their special cases.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import paddle
from arm_emulation import Emulator
from paddle import nn
from paddle.nn import functional
from paddle.static import InputSpec

from paddle_sparse_cb.deploy.mnn.converter import convert
from paddle_sparse_cb.deploy.mnn.runtime import MNNModel
from paddle_sparse_cb.deploy.onnx import export_onnx
from paddle_sparse_cb.utils.legacy_programs import legacy_program_format
from paddle_sparse_cb.utils.tables import render_table

CHANNELS = 14
# Sizes of the input, and the blocks of output channels that MNN's sparse kernels are chosen for.
CASES = (((15, 9), 1), ((12, 12), 4), ((7, 7), 1))
# Relative to the range of an output. Fast convolutions (Winograd) make 3e-4 on both processors.
MAX_ERROR = 1e-3


def pointwise(outputs: int, block: int, stride: int = 1) -> nn.Conv2D:
    """Returns a 1x1 convolution with 75% zeros in blocks of output channels."""
    layer = nn.Conv2D(CHANNELS, outputs, 1, stride=stride)
    kept = np.repeat(np.random.rand(-(-outputs // block), CHANNELS) < 0.25, block, axis=0)[:outputs]
    kept[::block, 0] = True
    weight = np.random.randn(outputs, CHANNELS) * kept
    layer.weight.set_value(weight[..., None, None].astype("float32"))
    return layer


def convolution(kernel: int, groups: int = 1, **arguments: int) -> nn.Conv2D:
    """Returns a convolution with as many outputs as inputs, a multiple of the groups."""
    return nn.Conv2D(CHANNELS, CHANNELS, kernel, groups=groups, padding=kernel // 2, **arguments)


def operators(size: tuple[int, int]) -> dict[str, Callable[[paddle.Tensor], paddle.Tensor]]:
    """Returns the operators for an input of a size by name.

    paddle2onnx 1.2 converts some adaptive average pooling wrongly if it does not divide the input: such is left out.
    """
    divisors = [divisor for divisor in (1, 2, 3, 4, 5, 7) if not any(length % divisor for length in size)]
    return {
        **{f"adaptive average pooling to {one}": nn.AdaptiveAvgPool2D(one) for one in divisors},
        "3x3": convolution(3),
        "3x3, stride 2": convolution(3, stride=2),
        "3x3, dilation 2": convolution(3, dilation=2),
        "3x3, 2 groups": convolution(3, groups=2),
        "7x7": convolution(7),
        "depthwise 3x3": convolution(3, groups=CHANNELS),
        "depthwise 3x3, stride 2": convolution(3, groups=CHANNELS, stride=2),
        "depthwise 5x5": convolution(5, groups=CHANNELS),
        "depthwise 5x5, stride 2": convolution(5, groups=CHANNELS, stride=2),
        "transposed 2x2": nn.Conv2DTranspose(CHANNELS, 9, 2, stride=2),
        "1x1, random zeros": pointwise(17, 1),
        "1x1, random zeros, stride 2": pointwise(17, 1, stride=2),
        "1x1, random zeros, 33 outputs": pointwise(33, 1),
        "1x1, 4x1 blocks": pointwise(16, 4),
        "1x1, 4x1 blocks, 18 outputs": pointwise(18, 4),
        "max pooling 3x3, stride 2": nn.MaxPool2D(3, 2, 1),
        "max pooling 2x2, ceil": nn.MaxPool2D(2, 2, ceil_mode=True),
        "average pooling 3x3": nn.AvgPool2D(3, 1, 1),
        "average pooling 3x3, counting padding": nn.AvgPool2D(3, 1, 1, exclusive=False),
        "average pooling 2x2, ceil": nn.AvgPool2D(2, 2, ceil_mode=True),
        "adaptive max pooling to 3": nn.AdaptiveMaxPool2D(3),
        "ReLU6": nn.ReLU6(),
        "hard swish": nn.Hardswish(),
        "hard sigmoid": nn.Hardsigmoid(),
        "leaky ReLU": nn.LeakyReLU(0.1),
        "PReLU": nn.PReLU(CHANNELS),
        "swish": nn.Swish(),
        "ELU": nn.ELU(),
        "GELU": nn.GELU(),
        "sigmoid": nn.Sigmoid(),
        "tanh": nn.Tanh(),
        "softmax over channels": nn.Softmax(1),
        "softmax over columns": nn.Softmax(-1),
        "batch norm": nn.BatchNorm2D(CHANNELS),
        "instance norm": nn.InstanceNorm2D(CHANNELS),
        "nearest, twice": nn.Upsample(scale_factor=2, mode="nearest"),
        "bilinear, twice": nn.Upsample(scale_factor=2, mode="bilinear"),
        "channel shuffle": shuffle,
        "means over columns": lambda x: x.mean(-1),
        "largest over rows": lambda x: x.max(2),
        "squeeze and excitation": SqueezeExcite(),
        "strided slice": lambda x: x[:, ::2, 1:, :-1],
    }


def shuffle(x: paddle.Tensor) -> paddle.Tensor:
    """Exchanges two halves of the channels one by one, as ESNet does."""
    _, channels, height, width = x.shape
    return (
        x.reshape([1, 2, channels // 2, height, width]).transpose([0, 2, 1, 3, 4]).reshape([1, channels, height, width])
    )


class SqueezeExcite(nn.Layer):
    """Scales channels by a function of their means."""

    def __init__(self) -> None:
        super().__init__()
        self.pool, self.scale = nn.AdaptiveAvgPool2D(1), nn.Conv2D(CHANNELS, CHANNELS, 1)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Returns the scaled input."""
        return x * functional.hardsigmoid(self.scale(self.pool(x)))


class Branches(nn.Layer):
    """Operators side by side."""

    def __init__(self, functions: Sequence[Callable[[paddle.Tensor], paddle.Tensor]]) -> None:
        super().__init__()
        self.functions = list(functions)
        self.layers = nn.LayerList([one for one in functions if isinstance(one, nn.Layer)])

    def forward(self, x: paddle.Tensor) -> list[paddle.Tensor]:
        """Returns the output of each operator."""
        return [function(x) for function in self.functions]


@dataclass(frozen=True)
class Difference:
    """How far the results of an operator are apart, relative to the range of its output.

    Attributes:
        name: the operator.
        size: height and width of its input.
        x86: MNN on this machine against Paddle.
        arm: MNN on ARM against Paddle.
    """

    name: str
    size: tuple[int, int]
    x86: float
    arm: float


def compare(emulator: Emulator, folder: Path) -> list[Difference]:
    """Runs all operators on inputs of all sizes.

    Raises:
        PipelineError: a conversion or the emulation failed.
    """
    paddle.seed(0)
    np.random.seed(0)
    cases = []
    for size, block in CASES:
        chosen = operators(size)
        cases.append((size, list(chosen), *_convert(Branches(list(chosen.values())), size, block, folder)))
    emulated = emulator.run({file: inputs for _, _, file, inputs, _ in cases})
    found = []
    for size, names, file, inputs, expected in cases:
        x86, arm = MNNModel(file).run(inputs), emulated[file].outputs
        for name, key, array in zip(names, _in_order(x86), expected):
            found.append(Difference(name, size, _distance(x86[key], array), _distance(arm[key], array)))
    return found


def _convert(
    network: Branches, size: tuple[int, int], block: int, folder: Path
) -> tuple[Path, dict[str, np.ndarray], list[np.ndarray]]:
    """Returns the `.mnn` file of a network, inputs for it, and Paddle's outputs."""
    network.eval()
    shape = [1, CHANNELS, *size]
    prefix = folder / f"operators_{size[0]}x{size[1]}" / "model"
    with legacy_program_format():  # and not `export`, which replaces what Paddle-Lite computes wrongly
        paddle.jit.save(network, str(prefix), [InputSpec(shape, "float32", "x")])
    onnx = export_onnx(prefix, prefix.with_suffix(".onnx"))
    file = convert(onnx, prefix.with_suffix(".mnn"), sparse=True, block=block)
    x = np.random.RandomState(size[0]).randn(*shape).astype("float32") * 2
    with paddle.no_grad():
        expected = [output.numpy() for output in network(paddle.to_tensor(x))]
    return file, {"x": x}, expected


def _in_order(outputs: Mapping[str, np.ndarray]) -> list[str]:
    """Sorts the names of outputs by the number in them, which counts the outputs of the network."""
    return sorted(outputs, key=lambda name: int("".join(filter(str.isdigit, name.partition(".")[0]))))


def _distance(found: np.ndarray, expected: np.ndarray) -> float:
    if found.size != expected.size:
        return float("inf")
    return float(np.abs(found.reshape(expected.shape) - expected).max() / max(float(np.ptp(expected)), 1e-30))


def table(differences: Sequence[Difference]) -> str:
    """Renders the largest difference of each operator over all sizes."""
    rows = []
    for name in dict.fromkeys(one.name for one in differences):
        same = [one for one in differences if one.name == name]
        rows.append((name, f"{max(one.x86 for one in same):.1e}", f"{max(one.arm for one in same):.1e}"))
    return render_table(("", "MNN on x86 to Paddle", "MNN on ARM to Paddle"), rows, "lrr")


def shortfalls(differences: Sequence[Difference]) -> list[str]:
    """Returns a line for each operator that is computed wrongly."""
    return [
        f"{one.name} on {one.size[0]}x{one.size[1]}: differs from Paddle by {one.x86:.1e} on x86, {one.arm:.1e} on ARM"
        for one in differences
        if not max(one.x86, one.arm) <= MAX_ERROR
    ]
