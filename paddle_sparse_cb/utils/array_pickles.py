"""Interprets pickles of arrays, without Python's unpickler.

A pickle is a program for a stack machine. Python's unpickler calls whatever the program names. Restricted to a few
names it still takes any amount of time and memory for a small file: arguments are shared by reference, so one string
can be encoded a million times, and a key that is a nested tuple is hashed exponentially. The machine here knows only
the opcodes and the calls that pickles of arrays consist of, checks every argument, and bounds everything that it makes
by the size of the file.
"""

from __future__ import annotations

import io
import math
import pickletools
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

MAX_OPCODES = 1_000_000  # an array takes some 30; PicoDet-l with its optimizer has 1,500 arrays
MAX_VALUES = 1_000_000  # of the result, shared values counted at each place
MAX_DEPTH = 32  # of dicts, lists and tuples
_MAX_DIMENSIONS = 32  # numpy's limit

# The dtypes of weights.
_DTYPES = frozenset({"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"})

# Opcodes whose argument is the value to push. pickletools reads the argument, and no more than the file contains.
# fmt: off
_PUSHED = frozenset({
    "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES",
    "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
})
# fmt: on
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_SHORT_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_PUTS, _GETS = ("BINPUT", "LONG_BINPUT"), ("BINGET", "LONG_BINGET")
# fmt: off
_OTHERS = frozenset({
    "PROTO", "FRAME", "STOP", "MARK", "TUPLE", "APPEND", "APPENDS", "SETITEM", "SETITEMS", "MEMOIZE", "GLOBAL",
    "STACK_GLOBAL", "REDUCE", "BUILD",
})
# fmt: on
_OPCODES: dict[str, Any] = {opcode.code: opcode for opcode in pickletools.opcodes}
_KNOWN = frozenset({*_PUSHED, *_CONSTANTS, *_EMPTY, *_SHORT_TUPLES, *_PUTS, *_GETS, *_OTHERS})

# The names in a pickle that numpy 1 or numpy 2 wrote for an array, and those of Paddle's containers. Protocol 2 stores
# bytes as text to encode, and empty bytes as a call of bytes(). Paddle stores a tensor in a nested dict, such as a
# master weight, as a tuple of name and array; its older checkpoints are ordered dicts.
_CALLS = {
    "multiarray._reconstruct": "array",
    "multiarray.scalar": "scalar",
    "numeric._frombuffer": "buffer",
    "numpy.ndarray": "type",
    "numpy.dtype": "dtype",
    "collections.OrderedDict": "dict",
    "_codecs.encode": "encode",
    "__builtin__.bytes": "bytes",
    "builtins.bytes": "bytes",
    "__builtin__.tuple": "tuple",
    "builtins.tuple": "tuple",
}


class PickleError(ValueError):
    """The pickle is damaged, or not one of arrays."""


class _Call:
    """A name of `_CALLS` on the stack."""

    def __init__(self, kind: str) -> None:
        self.kind = kind


class _DType:
    """A dtype, without its byte order until its state has been set."""

    def __init__(self, code: str) -> None:
        self.numpy = np.dtype(code)


class _Array:
    """An array, empty until its state has been set. The content is copied once, for the result."""

    def __init__(self) -> None:
        self.numpy = np.zeros(0, dtype=np.float32)


def load_pickle(stored: bytes) -> Any:
    """Returns the content of a pickle that consists of arrays, plain values, lists, tuples and dicts with text as keys.

    Protocols 2 to 5 are read. A pair of a name and an array, as Paddle stores a tensor, becomes the array.

    Args:
        stored: the pickle.

    Raises:
        PickleError: it contains something else, is damaged, or expands to far more than its size.
        ValueError: it is damaged; so do EOFError and UnicodeError.
    """
    return _Result(_Machine(stored).run(), len(stored)).value


def _require(condition: object, reason: str) -> None:
    if not condition:
        raise PickleError(reason)


class _Machine:
    """The stack machine."""

    def __init__(self, stored: bytes) -> None:
        self._stored = stored
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._encoded = 0

    def run(self) -> Any:
        """Executes the pickle and returns the value that it leaves."""
        file = io.BytesIO(self._stored)
        for _ in range(MAX_OPCODES):
            code = file.read(1)
            _require(code, "it is truncated")
            opcode = _OPCODES.get(code.decode("latin1"))
            if opcode is None or opcode.name not in _KNOWN:  # before its argument is read: LONG takes quadratic time
                raise PickleError(f"the opcode {opcode.name if opcode else repr(code)} is not allowed in a weight file")
            name = opcode.name
            argument = opcode.arg.reader(file) if opcode.arg else None
            if name == "STOP":
                _require(len(self._stack) == 1 and not self._marks, "it leaves other than one value")
                return self._stack[0]
            self._execute(name, argument)
        raise PickleError(f"it has more than {MAX_OPCODES:,} opcodes")

    def _execute(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name in _PUSHED:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in _PUTS:
            self._memo[argument] = self._top()
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = self._top()
        elif name in _GETS:
            _require(argument in self._memo, "it uses a memo index that it has not set")
            stack.append(self._memo[argument])
        elif name == "MARK":
            self._marks.append(len(stack))
        elif name in _SHORT_TUPLES:
            stack.append(tuple(self._pop(_SHORT_TUPLES[name])))
        elif name == "TUPLE":
            stack.append(tuple(self._pop_to_mark()))
        elif name in ("APPEND", "APPENDS"):
            values = self._pop(1) if name == "APPEND" else self._pop_to_mark()
            _require(isinstance(self._top(), list), "it appends to something other than a list")
            self._top().extend(values)
        elif name in ("SETITEM", "SETITEMS"):
            self._set_items(self._pop(2) if name == "SETITEM" else self._pop_to_mark())
        elif name == "GLOBAL":
            self._push_call(*str(argument).split(" ", 1))
        elif name == "STACK_GLOBAL":
            self._push_call(*self._pop(2))
        elif name == "REDUCE":
            call, arguments = self._pop(2)
            _require(isinstance(call, _Call) and isinstance(arguments, tuple), "it calls what is not a function")
            stack.append(self._called(call.kind, arguments))
        elif name == "BUILD":
            (state,) = self._pop(1)
            _set_state(self._top(), state)

    def _pop(self, count: int) -> list[Any]:
        floor = self._marks[-1] if self._marks else 0
        _require(len(self._stack) - count >= floor, "it takes more values from the stack than there are")
        values = self._stack[len(self._stack) - count :]
        del self._stack[len(self._stack) - count :]
        return values

    def _pop_to_mark(self) -> list[Any]:
        _require(self._marks, "it uses a mark that it has not set")
        start = self._marks.pop()
        values = self._stack[start:]
        del self._stack[start:]
        return values

    def _top(self) -> Any:
        _require(self._stack, "it uses a value on an empty stack")
        return self._stack[-1]

    def _set_items(self, items: list[Any]) -> None:
        target = self._top()
        _require(isinstance(target, dict) and len(items) % 2 == 0, "it sets items of something other than a dict")
        for key, value in zip(items[::2], items[1::2]):
            _set_item(target, key, value)

    def _push_call(self, module: Any, name: Any = None) -> None:
        _require(isinstance(module, str) and isinstance(name, str), "it names a function by something other than text")
        path = f"{module}.{name}"
        for core in ("numpy.core.", "numpy._core."):
            path = path[len(core) :] if path.startswith(core) else path
        _require(path in _CALLS, f"it names {path[:200]}, which is not allowed in a weight file")
        self._stack.append(_Call(_CALLS[path]))

    def _called(self, kind: str, arguments: tuple[Any, ...]) -> Any:
        """Returns the result of a call."""
        _require(len(arguments) <= 4, "it calls a function with too many arguments")
        types = tuple(type(argument) for argument in arguments)
        if kind == "array":
            return _Array()
        if kind == "dtype" and types[:1] == (str,):
            _require(arguments[0] in _DTYPES, f"it contains an array of dtype {arguments[0][:200]!r}")
            return _DType(arguments[0])
        if kind == "scalar" and types == (_DType, bytes):
            dtype, content = arguments
            _require(len(content) == dtype.numpy.itemsize, "it contains a scalar of another size")
            return np.frombuffer(content, dtype=dtype.numpy)[0]
        if kind == "buffer" and len(arguments) == 4:
            content, dtype, shape, order = arguments
            array = _Array()
            _set_state(array, (1, shape, dtype, order == "F", content))
            return array
        if kind == "encode" and types == (str, str) and arguments[1] == "latin1":
            self._encoded += len(arguments[0])
            _require(self._encoded <= len(self._stored), "it encodes more text than it contains")
            return arguments[0].encode("latin1")
        if kind == "bytes" and not arguments:
            return b""
        if kind == "tuple" and types == (tuple,):
            return arguments[0]
        if kind == "dict" and not arguments:
            return {}
        raise PickleError(f"it calls {kind} with arguments that are not those of an array")


def _set_item(target: dict[str, Any], key: Any, value: Any) -> None:
    _require(isinstance(key, str), f"keys must be text, got {type(key).__name__}")
    target[key] = value


def _set_state(target: Any, state: Any) -> None:
    """Does what `__setstate__` of numpy does, which trusts its arguments."""
    if isinstance(target, _DType):
        _require(isinstance(state, tuple) and len(state) >= 2 and state[1] in ("<", ">", "|", "="), "a damaged dtype")
        target.numpy = target.numpy.newbyteorder(">") if state[1] == ">" else target.numpy
        return
    _require(isinstance(target, _Array), "it sets the state of what is not an array")
    _require(isinstance(state, tuple) and len(state) == 5, "the state of an array is not complete")
    _, shape, dtype, fortran, content = state
    _require(isinstance(dtype, _DType), "an array of no dtype")
    _require(isinstance(content, (bytes, bytearray)), "an array without bytes")
    _require(isinstance(shape, tuple) and len(shape) <= _MAX_DIMENSIONS, "an array without a valid shape")
    _require(all(type(size) is int and 0 <= size < 2**48 for size in shape), "an array without a valid shape")
    size = math.prod(shape) * dtype.numpy.itemsize
    _require(size == len(content), f"an array of shape {list(shape)} with {len(content)} bytes")
    order: Literal["F", "C"] = "F" if fortran is True else "C"
    target.numpy = np.frombuffer(content, dtype=dtype.numpy).reshape(shape, order=order)


class _Result:
    """Copies what the machine left into plain values.

    A value that is referred to in several places counts at each: a kilobyte of dicts, each with the next one twice,
    stands for more values than any memory holds.
    """

    def __init__(self, content: Any, file_size: int) -> None:
        self._values, self._bytes, self._most_bytes = 0, 0, 4 * file_size
        self._copies: dict[int, np.ndarray] = {}
        self.value = self._plain(content, 0)

    def _plain(self, value: Any, depth: int) -> Any:
        self._values += 1
        if self._values > MAX_VALUES:
            raise PickleError(f"it expands to more than {MAX_VALUES:,} values")
        if depth > MAX_DEPTH:
            raise PickleError(f"it is nested deeper than {MAX_DEPTH} levels")
        if isinstance(value, _Array):
            return self._copied(value)
        if isinstance(value, dict):
            return {name: self._plain(inner, depth + 1) for name, inner in value.items()}
        if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], _Array):
            return self._plain(value[1], depth + 1)
        if isinstance(value, (list, tuple)):
            return type(value)(self._plain(inner, depth + 1) for inner in value)
        _require(not isinstance(value, (_Call, _DType)), "it contains a function or a dtype")
        return value

    def _copied(self, array: _Array) -> np.ndarray:
        self._bytes += array.numpy.nbytes
        _require(self._bytes <= self._most_bytes, "its arrays expand to more than four times the file")
        if id(array) not in self._copies:
            self._copies[id(array)] = array.numpy.copy()
        return self._copies[id(array)]
