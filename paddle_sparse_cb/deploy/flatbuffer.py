"""Reads flatbuffers, of which `.nb` and `.mnn` files consist, without code generated from their schemas.

A file from elsewhere may lead to any place in it, from everywhere; reading it takes no more time and memory than its
size allows.
"""

from __future__ import annotations

import struct

import numpy as np

# What reading a damaged flatbuffer raises.
DAMAGED = (struct.error, IndexError, KeyError, ValueError, OverflowError)

_MAX_VTABLE = 256  # bytes of the list of a table's fields; the largest ones have some 20 fields
_TABLE_SIZE = 8  # bytes that a table takes at least, with the offset that leads to it


class Source:
    """The bytes of a file, and how many of them may still be used.

    Offsets may lead to the same place from everywhere: a megabyte could stand for 10**10 tables. Paddle-Lite and MNN
    store every table and every vector once, so what a file contains is never more than its size.
    """

    def __init__(self, data: bytes) -> None:
        self.data, self._left = data, 2 * len(data)

    def use(self, size: int) -> None:
        """Counts a part that is used."""
        self._left -= size
        if self._left < 0:
            raise ValueError("its offsets lead to the same places again and again")


class Table:
    """A flatbuffer table; fields are addressed by their number in the schema (flatbuffers.dev, internals).

    A union takes two numbers, for its type and its value. Methods raise one of `DAMAGED` where the bytes are no table.
    """

    def __init__(self, source: Source, at: int) -> None:
        source.use(_TABLE_SIZE)
        self._source, self._data, self._at = source, source.data, at
        table = at - struct.unpack_from("<i", self._data, at)[0]
        size = struct.unpack_from("<H", self._data, table)[0]
        if size > _MAX_VTABLE:
            raise ValueError(f"a table has {size // 2} fields")
        self._fields = struct.unpack_from(f"<{(size - 4) // 2}H", self._data, table + 4)

    def _find(self, field: int) -> int | None:
        offset = self._fields[field] if field < len(self._fields) else 0
        return self._at + offset if offset else None

    def has(self, field: int) -> bool:
        """Returns whether the field is stored."""
        return self._find(field) is not None

    def number(self, field: int, default: int = 0) -> int:
        """Returns an int32."""
        at = self._find(field)
        return default if at is None else struct.unpack_from("<i", self._data, at)[0]

    def byte(self, field: int) -> int:
        """Returns a uint8, a boolean, or the type of a union; 0 if it is not stored."""
        at = self._find(field)
        return 0 if at is None else self._data[at]

    def _target(self, field: int) -> int | None:
        at = self._find(field)
        return None if at is None else at + struct.unpack_from("<I", self._data, at)[0]

    def table(self, field: int) -> Table:
        """Returns a table, which must be stored."""
        at = self._target(field)
        if at is None:
            raise IndexError(f"a table lacks its field {field}")
        return Table(self._source, at)

    def vector(self, field: int, dtype: str) -> np.ndarray:
        """Returns a vector of numbers as a view of the file; an empty one if it is not stored."""
        at = self._target(field)
        if at is None:
            return np.zeros(0, dtype)
        vector = np.frombuffer(self._data, dtype, struct.unpack_from("<I", self._data, at)[0], at + 4)
        self._source.use(vector.nbytes)
        return vector

    def string(self, field: int) -> str:
        """Returns a string; an empty one if it is not stored."""
        return self.vector(field, "u1").tobytes().decode()

    def tables(self, field: int) -> list[Table]:
        """Returns a vector of tables."""
        return [Table(self._source, at) for at in self._element_offsets(field)]

    def strings(self, field: int) -> list[str]:
        """Returns a vector of strings."""
        return [self._string(at) for at in self._element_offsets(field)]

    def _string(self, at: int) -> str:
        text = self._data[at + 4 : at + 4 + struct.unpack_from("<I", self._data, at)[0]]
        self._source.use(len(text))
        return text.decode()

    def _element_offsets(self, field: int) -> list[int]:
        at = self._target(field)
        offsets = self.vector(field, "<u4").tolist()
        return [] if at is None else [at + 4 + 4 * index + offset for index, offset in enumerate(offsets)]


def root_table(source: Source, begin: int = 0) -> Table:
    """Returns the root table of a flatbuffer that begins at an offset."""
    return Table(source, begin + struct.unpack_from("<I", source.data, begin)[0])
