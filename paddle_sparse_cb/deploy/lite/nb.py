"""Reads the `.nb` file of Paddle-Lite's optimizer: its operators, and its weights as they are stored.

The file contains a program followed by the parameters, each a flatbuffer (Paddle-Lite 2.13:
lite/model_parser/model_parser.cc, lite/model_parser/flatbuffers/*.fbs and io.cc). A sparse convolution is stored as its
non-zeros and the byte distances between them in the input (lite/core/optimizer/mir/sparse_conv_detect_pass.cc).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import InputError
from ..flatbuffer import DAMAGED, Source, Table, root_table

# Paddle-Lite's VarType: the types of weights and offsets.
_DTYPES = {2: "<i4", 3: "<i8", 4: "<f2", 5: "<f4", 21: "i1"}
_LAYOUT_VERSION = 2  # the first number in the file
_KERNEL_ATTRIBUTE = "__@kernel_type_attr@__"
_KERNEL_PRECISIONS = {"1": "FP32", "2": "INT8", "5": "FP16"}  # of Paddle-Lite's PrecisionType
_MAX_WEIGHTS = 1 << 26  # of a convolution; the zeros that a sparse kernel leaves out take memory too


@dataclass(frozen=True)
class Operator:
    """An operator of an optimized program.

    Attributes:
        type: such as `conv2d` or `sparse_conv2d`.
        inputs: the variable of each input, such as `conv2d_0.w_0` of `Filter`.
        attributes: the integer attributes, such as `first_ic`.
        kernel: the kernel that runs it: operator, alias, target, precision and layout, such as `conv2d/def/4/1/1`.
    """

    type: str
    inputs: dict[str, str]
    attributes: dict[str, int]
    kernel: str = ""

    @property
    def sparse(self) -> bool:
        """Whether the operator has a sparse kernel."""
        return self.type == "sparse_conv2d"

    @property
    def block(self) -> tuple[int, int] | None:
        """The output and input channels that a sparse kernel processes at a time; None for other kernels."""
        if not self.sparse:
            return None
        return (2, 1) if self.attributes["flag_semi"] else (1, 1)

    @property
    def precision(self) -> str:
        """What the kernel computes in: `FP32`, `FP16`, `INT8`, or empty if it is anything else."""
        _, _, _, number, *_ = [*self.kernel.split("/"), *[""] * 4]
        return _KERNEL_PRECISIONS.get(number, "")

    @property
    def weight_variable(self) -> str | None:
        """The variable of a convolution's weight in the exported program; None for other operators."""
        if self.sparse:
            return self.inputs["NonZeroWeights"][: -len("_nonzeros_output")]
        return self.inputs["Filter"] if self.type in ("conv2d", "depthwise_conv2d") else None


@dataclass(frozen=True)
class OptimizedModel:
    """The content of a `.nb` file: its operators in order, and its parameters by variable."""

    path: Path
    operators: tuple[Operator, ...]
    parameters: dict[str, np.ndarray]

    @property
    def convolutions(self) -> dict[str, Operator]:
        """The convolutions by the variable of their weight in the exported program."""
        return {op.weight_variable: op for op in self.operators if op.weight_variable is not None}

    def decode_weight(self, operator: Operator, shape: tuple[int, ...], pixels: int) -> np.ndarray:
        """Returns the weight of a convolution as stored; zeros left out by a sparse kernel are filled in.

        Args:
            operator: one of `convolutions`.
            shape: the shape of the weight in the exported program.
            pixels: height times width of the convolution's input, which the offsets of a sparse kernel depend on.

        Raises:
            InputError: the weight has another shape, or the offsets of a sparse kernel are not those of an input with
                that number of pixels.
        """
        try:
            if operator.sparse:
                return self._decode_sparse(operator, shape, pixels)
            return self.parameters[operator.inputs["Filter"]].reshape(shape)
        except (ValueError, KeyError, IndexError) as error:
            raise InputError(
                f"{self.path}: {operator.weight_variable} is not a weight of shape {list(shape)} on an "
                f"input of {pixels} pixels: {error}"
            ) from None

    def _decode_sparse(self, operator: Operator, shape: tuple[int, ...], pixels: int) -> np.ndarray:
        values = self.parameters[operator.inputs["NonZeroWeights"]]
        ends = self.parameters[operator.inputs["OcNonZeros"]].tolist()
        steps, remainders = np.divmod(self.parameters[operator.inputs["Diffs"]], pixels * values.itemsize)
        first, paired = operator.attributes["first_ic"], operator.block == (2, 1)
        # Output channels are stored in pairs (a last odd one by itself) or one by one. In the latter case the values of
        # each FP32 channel are padded to a multiple of four.
        rows_per_group, alignment = (2, 1) if paired else (1, 4 if values.dtype == np.float32 else 1)
        ends = ends[: -(-shape[0] // rows_per_group)]  # what follows was never set
        if np.any(np.diff(ends) < 0) or math.prod(shape) > _MAX_WEIGHTS:
            raise ValueError(f"the kernel's rows are not in order, or there are more than {_MAX_WEIGHTS:,} weights")
        weight = np.zeros(shape[:2], dtype=values.dtype)
        begin, column = 0, first
        for row, end in zip(range(0, shape[0], rows_per_group), ends):
            if end > begin:
                columns = column + np.concatenate(([0], np.cumsum(steps[begin : end - 1])))
                if remainders[begin:end].any() or columns.min() < 0 or columns.max() >= shape[1]:
                    raise ValueError("the sparse kernel's offsets do not match")
                rows = min(rows_per_group, shape[0] - row)
                stored = values[begin * rows_per_group : begin * rows_per_group + rows * (end - begin)]
                weight[row : row + rows, columns] = stored.reshape(end - begin, rows).T
                # The last step of a group is the sum of all steps so far, from the very first non-zero to that of the
                # next group.
                column = first + int(steps[end - 1])
            begin = -(-end // alignment) * alignment
        return weight.reshape(shape)


@dataclass(frozen=True)
class ConvolutionCount:
    """The number of convolutions in a `.nb` file, of those with a sparse kernel, and of those among these in pairs.

    Attributes:
        total: all convolutions.
        sparse: those with a sparse kernel.
        paired: those with a sparse kernel that processes two output channels at a time.
    """

    total: int
    sparse: int
    paired: int = 0


def count_convolutions(nb: Path) -> ConvolutionCount:
    """Counts the convolutions in an optimized model; one that is called twice counts twice.

    Raises:
        InputError: see `read_nb`.
    """
    convolutions = [op for op in read_nb(nb).operators if op.weight_variable is not None]
    blocks = [op.block for op in convolutions if op.sparse]
    return ConvolutionCount(len(convolutions), len(blocks), blocks.count((2, 1)))


def read_nb(path: Path) -> OptimizedModel:
    """Reads an optimized model.

    Raises:
        InputError: the file is missing, damaged, or not in the layout of Paddle-Lite 2.13.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    data = path.read_bytes()
    try:
        version, size = struct.unpack_from("<H16xQ", data)
        if version != _LAYOUT_VERSION:
            raise InputError(f"{path}: not a .nb file with layout {_LAYOUT_VERSION}, which Paddle-Lite 2.13 writes")
        begin = struct.calcsize("<H16xQ")
        source = Source(data)
        operators = tuple(_operators(root_table(source, begin)))
        for operator in operators:
            operator.weight_variable, operator.block  # noqa: B018  raise KeyError for a convolution that lacks them
        return OptimizedModel(path, operators, dict(_parameters(source, begin + size)))
    except InputError:
        raise
    except DAMAGED as error:
        raise InputError(f"{path}: damaged: {error}") from None


def _operators(program: Table) -> Iterator[Operator]:
    for block in program.tables(0):
        for op in block.tables(3):
            inputs = {slot.string(0): names[0] for slot in op.tables(1) if (names := slot.strings(1))}
            # Only attributes of type INT (0) are needed, and one of type STRING (2).
            attributes = [(attribute.string(0), attribute.number(1), attribute) for attribute in op.tables(3)]
            integers = {name: attribute.number(2) for name, kind, attribute in attributes if kind == 0}
            kernels = [one.string(4) for name, kind, one in attributes if kind == 2 and name == _KERNEL_ATTRIBUTE]
            yield Operator(op.string(0), inputs, integers, *kernels[:1])


def _parameters(source: Source, at: int) -> Iterator[tuple[str, np.ndarray]]:
    data = source.data
    (meta,) = struct.unpack_from("<2xH", data, at)
    at += 4 + meta
    header, count = struct.unpack_from("<HH", data, at)
    at += 2 + header
    for _ in range(count):
        size, offset = struct.unpack_from("<II", data, at)
        param = root_table(source, at + 4 + offset)
        tensor = param.table(3)
        dtype = _DTYPES.get(tensor.number(3))
        if dtype is not None:
            yield param.string(1), tensor.vector(4, "i1").view(dtype).reshape(tensor.vector(2, "<i8").tolist())
        at += 4 + size
