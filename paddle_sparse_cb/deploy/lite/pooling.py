"""Finds and replaces adaptive average pooling that Paddle-Lite's ARM kernel computes wrongly, in any model.

The kernel (Paddle-Lite 2.13, lite/kernels/arm/pool_compute.cc) picks its fast paths without looking at `adaptive`. It
runs adaptive pooling to 3x3 as an ordinary 3x3 kernel with stride 1 (measured: 98% of the outputs wrong), and adaptive
pooling to the size of its own input as global pooling (read in the source).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...utils.weight_files import parse_program, tensor_details
from ..program import slot_arguments


@dataclass(frozen=True)
class _AdaptivePool:
    """A `pool2d` operator with `adaptive` set; sizes are [height, width], that of the input is None if unknown."""

    op: Any
    input_size: list[int] | None
    output_size: list[int]

    @property
    def miscomputed(self) -> bool:
        height, width = self.output_size
        return height == width > 1 and (height == 3 or self.output_size == self.input_size)

    @property
    def kernel(self) -> list[int] | None:
        """Kernel and stride of the ordinary pooling with the same result; None if there is none."""
        if self.input_size is None or any(size % out for size, out in zip(self.input_size, self.output_size)):
            return None
        return [size // out for size, out in zip(self.input_size, self.output_size)]

    def error(self, file: object) -> InputError:
        output = slot_arguments(self.op.outputs)["Out"][0]
        source = "unknown size" if self.input_size is None else "x".join(map(str, self.input_size))
        size = self.output_size[0]
        remedy = (
            "export the network with this package, which replaces it"
            if self.kernel
            else f"height and width of its input must be multiples of {size}, or use another pooling"
        )
        return InputError(
            f"{file}: operator pool2d {output!r}, AdaptiveAvgPool2D({size}) on an input of {source}, is "
            f"computed wrongly by Paddle-Lite on ARM: {remedy}"
        )


def replace_adaptive_pools(program: Any, file: str) -> None:
    """Replaces miscomputed adaptive pooling in a program by ordinary pooling with the same result.

    Args:
        program: a parsed program, changed in place.
        file: name of the program's file for the error message.

    Raises:
        InputError: the input size is not a multiple of the output size, so that no ordinary pooling is equivalent.
    """
    for pool in _adaptive_pools(program):
        if not pool.miscomputed:
            continue
        if pool.kernel is None:
            raise pool.error(file)
        for attribute in pool.op.attrs:
            if attribute.name in ("ksize", "strides"):
                attribute.ints[:] = pool.kernel
            elif attribute.name == "adaptive":
                attribute.b = False


def check_pools(prefix: Path) -> None:
    """Checks an exported model for miscomputed adaptive pooling.

    Args:
        prefix: the exported model's path without `.pdmodel`.

    Raises:
        InputError: an operator would be computed wrongly, or `.pdmodel` is missing or damaged.
    """
    file = f"{prefix}.pdmodel"
    try:
        for pool in _adaptive_pools(parse_program(prefix)):
            if pool.miscomputed:
                raise pool.error(file)
    except InputError:
        raise
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise InputError(f"{file}: damaged: {type(error).__name__} {error}") from None


def find_uneven_pools(program: Any) -> list[str]:
    """Describes the adaptive pooling in a program whose windows differ in size, or whose input size is unknown.

    paddle2onnx 1.2 converts it to ordinary pooling, which computes something else (measured: 14 to 3 and 12 to 7).
    """
    pools = [pool for pool in _adaptive_pools(program) if pool.kernel is None and pool.output_size != [1, 1]]
    return [f"AdaptiveAvgPool2D({pool.output_size[0]}) on an input of {pool.input_size}" for pool in pools]


def _adaptive_pools(program: Any) -> Iterator[_AdaptivePool]:
    # A block of a branch or loop also reads variables of the block around it.
    variables = {var.name: var for block in program.blocks for var in block.vars}
    for op in (op for block in program.blocks for op in block.ops):
        if op.type != "pool2d":
            continue
        attributes = {attribute.name: attribute for attribute in op.attrs}
        if "adaptive" not in attributes or not attributes["adaptive"].b:
            continue
        dims = list(tensor_details(variables[slot_arguments(op.inputs)["X"][0]]).dims)
        channels_last = "data_format" in attributes and attributes["data_format"].s == "NHWC"
        known = len(dims) == 4 and min(dims[2:]) > 0 and not channels_last  # Paddle-Lite knows no NHWC on ARM
        yield _AdaptivePool(op, dims[2:] if known else None, list(attributes["ksize"].ints))
