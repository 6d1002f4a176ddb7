"""Reads the `.mnn` file of MNN's converter: its operators, and the weights of its convolutions as they are stored.

The file is a flatbuffer (MNN 3.6: schema/default/MNN.fbs, CaffeOp.fbs and Tensor.fbs). A sparse convolution is stored
as its non-zeros and their positions in the dense weight (source/core/CommonCompute.hpp), together with the numbers of
non-zeros and blocks, which the runtime allocates memory by.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import InputError
from ..flatbuffer import DAMAGED, Source, Table, root_table
from .constraints import BLOCKS

# Numbers of MNN's schema. Fields of the tables `Net`, `SubGraphProto`, `Op`, `ExtraInfo`, `Input`:
_EXTRA_INFO, _OPERATORS, _OUTPUT_NAMES, _SUBGRAPHS = 2, 3, 4, 10
_NODES = 4
_INPUTS, _PARAMETER_TYPE, _PARAMETER, _NAME, _OUTPUTS, _TYPE = 0, 1, 2, 3, 4, 5
_VERSION = 2
_DIMENSIONS = 0
# of `Convolution2D`, `Convolution2DCommon`, `IDSTQuan`, `SparseCommon` and `Attribute`,
_COMMON, _WEIGHT, _BIAS, _ENCODED, _QUANTIZED, _SPARSE, _EXTERNAL = range(7)
_KERNEL_WIDTH, _KERNEL_HEIGHT, _GROUPS = 2, 3, 9
_NON_ZEROS, _ENCODING, _WEIGHT_SIZE, _POSITIONS = 1, 2, 12, 13
_ARGUMENTS = 1
_ARGUMENT_VALUE, _ARGUMENT_KEY = 1, 3
# and values of the enumeration `OpType` and the union `OpParameter`.
_CONVOLUTION, _DEPTHWISE, _INPUT = 12, 13, 34
_IS_CONVOLUTION, _IS_INPUT = 9, 21

_MAX_WEIGHTS = 1 << 26  # of a convolution; the zeros that a sparse one leaves out take memory too


@dataclass(frozen=True)
class MNNConvolution:
    """A convolution as stored; MNN also runs linear layers as convolutions.

    Attributes:
        name: that of the output of the ONNX operator it was made from, perhaps with a suffix.
        rows: the number of output channels.
        kernel: height and width.
        is_depthwise: whether each input channel has filters of its own. MNN runs these dense, even if stored sparse.
        values: the weight in one dimension, or its non-zeros if it is stored sparse.
        positions: those of the non-zeros in the dense weight; None if it is stored dense.
        size: the number of weights.
        block: the number of output channels that MNN's kernel takes together; 0 if the weight is stored dense.
        bias: one value for each output channel.
    """

    name: str
    rows: int
    kernel: tuple[int, int]
    is_depthwise: bool
    values: np.ndarray
    positions: np.ndarray | None
    size: int
    block: int
    bias: np.ndarray

    @property
    def runs_sparse(self) -> bool:
        """Whether MNN's CPU backend has a sparse kernel for it."""
        return self.positions is not None and not self.is_depthwise

    def weight(self) -> np.ndarray:
        """Returns the weight of shape [output channels, weights of one], with zeros that were left out filled in."""
        if self.positions is None:
            return self.values.reshape(self.rows, -1)
        weight = np.zeros(self.size, np.float32)
        weight[self.positions] = self.values
        return weight.reshape(self.rows, -1)


@dataclass(frozen=True)
class MNNFile:
    """The content of an `.mnn` file.

    Attributes:
        path: the file.
        version: the version of the converter.
        inputs: the shape of each input.
        outputs: the names of the outputs, in the order of the ONNX model.
        operators: type, name, and numbers of the input and output tensors of each operator.
        convolutions: those among the operators, in their order.
    """

    path: Path
    version: str
    inputs: dict[str, tuple[int, ...]]
    outputs: tuple[str, ...]
    operators: tuple[tuple[int, str, tuple[int, ...], tuple[int, ...]], ...]
    convolutions: tuple[MNNConvolution, ...]


def read_mnn(path: Path) -> MNNFile:
    """Reads an `.mnn` file.

    Raises:
        InputError: the file is missing, damaged, or stores weights in another format than FP32.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        net = root_table(Source(path.read_bytes()))
        tables = [*net.tables(_OPERATORS), *(op for graph in net.tables(_SUBGRAPHS) for op in graph.tables(_NODES))]
        if not tables:
            raise ValueError("it has no operators")
        operators = tuple(
            (
                op.number(_TYPE),
                op.string(_NAME),
                tuple(op.vector(_INPUTS, "<i4").tolist()),
                tuple(op.vector(_OUTPUTS, "<i4").tolist()),
            )
            for op in tables
        )
        version = net.table(_EXTRA_INFO).string(_VERSION)
        outputs = tuple(net.strings(_OUTPUT_NAMES))
        return MNNFile(path, version, dict(_inputs(tables)), outputs, operators, tuple(_convolutions(tables)))
    except DAMAGED as error:
        raise InputError(f"{path}: not an .mnn file, or damaged: {error}") from None


def _inputs(operators: list[Table]) -> Iterator[tuple[str, tuple[int, ...]]]:
    for op in operators:
        if op.byte(_PARAMETER_TYPE) == _IS_INPUT:
            yield op.string(_NAME), tuple(op.table(_PARAMETER).vector(_DIMENSIONS, "<i4").tolist())


def _convolutions(operators: list[Table]) -> Iterator[MNNConvolution]:
    seen = set()
    for op in operators:
        is_depthwise = op.number(_TYPE) == _DEPTHWISE
        if (is_depthwise or op.number(_TYPE) == _CONVOLUTION) and op.byte(_PARAMETER_TYPE) == _IS_CONVOLUTION:
            name = op.string(_NAME)
            if name in seen:
                raise ValueError(f"two convolutions are called {name}")
            seen.add(name)
            yield _convolution(name, op.table(_PARAMETER), is_depthwise)


def _convolution(name: str, stored: Table, is_depthwise: bool) -> MNNConvolution:
    common, bias = stored.table(_COMMON), stored.vector(_BIAS, "<f4")
    rows, kernel = bias.size, (common.number(_KERNEL_HEIGHT, 1), common.number(_KERNEL_WIDTH, 1))
    if stored.has(_EXTERNAL) or stored.has(_QUANTIZED):
        raise ValueError(f"the weight of {name} is quantized, or not in the file")
    positions, size, block = None, 0, 0
    if stored.has(_SPARSE):
        encoded = stored.table(_ENCODED)
        if encoded.number(_ENCODING) != 0:
            raise ValueError(f"the weight of {name} is not FP32")
        values, positions = encoded.vector(_NON_ZEROS, "<f4"), encoded.vector(_POSITIONS, "<u4")
        size = encoded.number(_WEIGHT_SIZE)
        arguments = {one.string(_ARGUMENT_KEY): one.number(_ARGUMENT_VALUE) for one in stored.table(_SPARSE).tables(1)}
        block = arguments["sparseBlockOC"]
        _check_sparse(name, values, positions, size, rows, arguments)
    elif stored.has(_ENCODED):
        raise ValueError(f"the weight of {name} is not FP32")
    else:
        values = stored.vector(_WEIGHT, "<f4")
        size = values.size
    if not rows or not size or size % rows or size // rows % (kernel[0] * kernel[1] or 1):
        raise ValueError(f"{name} has {size} weights for {rows} output channels and a kernel of {kernel}")
    return MNNConvolution(name, rows, kernel, is_depthwise, values, positions, size, block, bias)


def _check_sparse(
    name: str, values: np.ndarray, positions: np.ndarray, size: int, rows: int, arguments: dict[str, int]
) -> None:
    """Checks what the runtime relies on without a check: it would write outside of its memory."""
    block = arguments["sparseBlockOC"]
    if not 0 < size <= _MAX_WEIGHTS or not rows or size % rows or block not in BLOCKS:
        raise ValueError(f"the sparse kernel of {name} has {size} weights for {rows} channels in blocks of {block}")
    steps = np.diff(positions.astype(np.int64))
    if not positions.size or positions.size != values.size or positions[-1] >= size or np.any(steps <= 0):
        raise ValueError(f"the positions of the sparse kernel of {name} are not in order, or outside of the weight")
    zeros = values.size - np.count_nonzero(values)
    is_all_zero = zeros == positions.size == 1  # stored as one zero
    if zeros and not is_all_zero:
        raise ValueError(f"the sparse kernel of {name} stores zeros")
    blocks = (0, 0) if is_all_zero else _count_blocks(positions, size // rows, rows, block)
    counted = {"NNZElement": blocks[0] * block + blocks[1], "blockNumber": sum(blocks), "sparseBlockKernel": 1}
    if counted != {key: arguments[key] for key in counted}:
        raise ValueError(f"the sparse kernel of {name} does not have the numbers of non-zeros and blocks it names")


def _count_blocks(positions: np.ndarray, columns: int, rows: int, block: int) -> tuple[int, int]:
    """Returns the number of blocks that are not zero, and of non-zeros in the last rows, which fill no block."""
    row, column = np.divmod(positions.astype(np.int64), columns)
    whole = row < rows // block * block
    return len(np.unique(row[whole] // block * columns + column[whole])), int((~whole).sum())
