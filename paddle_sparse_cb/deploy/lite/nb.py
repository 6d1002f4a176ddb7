"""Reads the `.nb` of Paddle-Lite's optimizer: its operators, and the weights as they are stored.

The file is a program and the parameters one after another, each a flatbuffer (Paddle-Lite 2.13:
lite/model_parser/model_parser.cc, lite/model_parser/flatbuffers/*.fbs and io.cc). A sparse convolution is stored as
its non-zeros and the steps between them in the image (lite/core/optimizer/mir/sparse_conv_detect_pass.cc).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import InputError

# Paddle-Lite's VarType: the types that weights and offsets have.
_DTYPES = {2: "<i4", 3: "<i8", 4: "<f2", 5: "<f4", 21: "i1"}
_VERSION = 2  # of the layout, which is the file's first number


@dataclass(frozen=True)
class Operator:
    """An operator of the optimized program.

    Attributes:
        kind: such as `conv2d` or `sparse_conv2d`.
        inputs: parameter to the variable it is, such as `Filter` to `conv2d_0.w_0`.
        attributes: the integers among its attributes, `first_ic` for one.
    """

    kind: str
    inputs: dict[str, str]
    attributes: dict[str, int]

    @property
    def sparse(self) -> bool:
        """Whether it has a sparse kernel."""
        return self.kind == "sparse_conv2d"

    @property
    def weight(self) -> str | None:
        """The variable that held a convolution's weight in the exported program; None for another operator."""
        if self.sparse:
            return self.inputs["NonZeroWeights"][: -len("_nonzeros_output")]
        return self.inputs["Filter"] if self.kind in ("conv2d", "depthwise_conv2d") else None


@dataclass(frozen=True)
class Optimized:
    """What a `.nb` holds: its operators in order, and its parameters by the names of their variables."""

    path: Path
    operators: tuple[Operator, ...]
    parameters: dict[str, np.ndarray]

    @property
    def convolutions(self) -> dict[str, Operator]:
        """The convolutions by the variable of their weight."""
        return {op.weight: op for op in self.operators if op.weight is not None}

    def weight(self, operator: Operator, shape: tuple[int, ...], pixels: int) -> np.ndarray:
        """The weight of a convolution as the file holds it, that of a sparse kernel with its zeros put back.

        Args:
            operator: one of `convolutions`.
            shape: of the weight in the exported program.
            pixels: height times width of the convolution's input; a sparse kernel's offsets hold it.

        Raises:
            InputError: the weight has another shape, or the offsets of a sparse kernel lead out of it or between its
                channels: it was made for an input of another size.
        """
        try:
            if operator.sparse:
                return self._sparse_weight(operator, shape, pixels)
            return self.parameters[operator.inputs["Filter"]].reshape(shape)
        except (ValueError, KeyError, IndexError) as error:
            raise InputError(f"{self.path}: {operator.weight} is not a weight of shape {list(shape)} on an input of "
                             f"{pixels} pixels: {error}") from None

    def _sparse_weight(self, operator: Operator, shape: tuple[int, ...], pixels: int) -> np.ndarray:
        values = self.parameters[operator.inputs["NonZeroWeights"]]
        ends = self.parameters[operator.inputs["OcNonZeros"]].tolist()
        steps, rest = np.divmod(self.parameters[operator.inputs["Diffs"]], pixels * values.itemsize)
        first, paired = operator.attributes["first_ic"], bool(operator.attributes["flag_semi"])
        # Output channels are stored in pairs, an odd last one by itself, or each by itself; FP32 ones of the latter
        # kind are filled up to a multiple of four values.
        height, fill = (2, 1) if paired else (1, 4 if values.dtype == np.float32 else 1)
        found = np.zeros(shape[:2], dtype=values.dtype)
        begin, column = 0, first
        for row, end in zip(range(0, shape[0], height), ends):
            if end > begin:
                columns = column + np.concatenate(([0], np.cumsum(steps[begin:end - 1])))
                if rest[begin:end].any() or columns.min() < 0 or columns.max() >= shape[1]:
                    raise ValueError("the sparse kernel's offsets are others")
                rows = min(height, shape[0] - row)
                stored = values[begin * height:begin * height + rows * (end - begin)].reshape(end - begin, rows)
                found[row:row + rows, columns] = stored.T
                column = first + int(steps[end - 1])  # the last step of a channel is the sum of all until there
            begin = -(-end // fill) * fill
        return found.reshape(shape)


def read_nb(path: Path) -> Optimized:
    """Reads an optimized model.

    Raises:
        InputError: it is missing, damaged, or not of Paddle-Lite 2.13's layout.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    data = path.read_bytes()
    try:
        version, size = struct.unpack_from("<H16xQ", data)
        if version != _VERSION:
            raise InputError(f"{path}: no .nb of layout {_VERSION}, which Paddle-Lite 2.13 writes")
        begin = struct.calcsize("<H16xQ")
        operators = tuple(_operators(_root(data, begin)))
        for operator in operators:
            operator.weight  # noqa: B018  a convolution without one is damaged
        return Optimized(path, operators, dict(_parameters(data, begin + size)))
    except InputError:
        raise
    except (struct.error, IndexError, KeyError, ValueError, OverflowError) as error:
        raise InputError(f"{path}: damaged: {error}") from None


class _Table:
    """A flatbuffer's table: its fields by their number in the schema (flatbuffers.dev, internals)."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at
        table = at - struct.unpack_from("<i", data, at)[0]
        size = struct.unpack_from("<H", data, table)[0]
        self._fields = struct.unpack_from(f"<{(size - 4) // 2}H", data, table + 4)

    def _find(self, field: int) -> int | None:
        offset = self._fields[field] if field < len(self._fields) else 0
        return self._at + offset if offset else None

    def number(self, field: int) -> int:
        at = self._find(field)
        return 0 if at is None else struct.unpack_from("<i", self._data, at)[0]

    def _target(self, field: int) -> int | None:
        at = self._find(field)
        return None if at is None else at + struct.unpack_from("<I", self._data, at)[0]

    def table(self, field: int) -> _Table:
        at = self._target(field)
        if at is None:
            raise IndexError(f"a table lacks its field {field}")
        return _Table(self._data, at)

    def vector(self, field: int, dtype: str) -> np.ndarray:
        at = self._target(field)
        if at is None:
            return np.zeros(0, dtype)
        return np.frombuffer(self._data, dtype, struct.unpack_from("<I", self._data, at)[0], at + 4)

    def string(self, field: int) -> str:
        return self.vector(field, "u1").tobytes().decode()

    def tables(self, field: int) -> list[_Table]:
        return [_Table(self._data, at) for at in self._places(field)]

    def strings(self, field: int) -> list[str]:
        return [self._data[at + 4:at + 4 + struct.unpack_from("<I", self._data, at)[0]].decode()
                for at in self._places(field)]

    def _places(self, field: int) -> list[int]:
        at = self._target(field)
        offsets = self.vector(field, "<u4").tolist()
        return [] if at is None else [at + 4 + 4 * index + offset for index, offset in enumerate(offsets)]


def _root(data: bytes, begin: int) -> _Table:
    return _Table(data, begin + struct.unpack_from("<I", data, begin)[0])


def _operators(program: _Table) -> Iterator[Operator]:
    for block in program.tables(0):
        for op in block.tables(3):
            inputs = {one.string(0): names[0] for one in op.tables(1) if (names := one.strings(1))}
            # Of the attributes only those of type INT; the others are not needed.
            integers = {one.string(0): one.number(2) for one in op.tables(3) if one.number(1) == 0}
            yield Operator(op.string(0), inputs, integers)


def _parameters(data: bytes, at: int) -> Iterator[tuple[str, np.ndarray]]:
    meta, = struct.unpack_from("<2xH", data, at)
    at += 4 + meta
    header, count = struct.unpack_from("<HH", data, at)
    at += 2 + header
    for _ in range(count):
        size, offset = struct.unpack_from("<II", data, at)
        param = _root(data, at + 4 + offset)
        tensor = param.table(3)
        dtype = _DTYPES.get(tensor.number(3))
        if dtype is not None:
            yield param.string(1), tensor.vector(4, "i1").view(dtype).reshape(tensor.vector(2, "<i8").tolist())
        at += 4 + size
