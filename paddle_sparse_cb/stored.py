"""Weights in files: `.pdparams` checkpoints and exported inference models.

`paddle.load` unpickles whatever a file names. A checkpoint from a stranger holds arrays, so only what makes arrays
and plain containers is let through here.
"""

from __future__ import annotations

import codecs
import os
import pickle
from pathlib import Path
from typing import Any, Literal

import numpy as np
import paddle

from .errors import InputError
from .paddle3 import old_programs

# The types of weights. numpy's own `dtype.__setstate__` and `ndarray.__setstate__` believe a damaged file and crash.
_TYPES = frozenset({"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"})


class _DType:
    """What a pickled `numpy.dtype` becomes: one of the plain types."""

    def __init__(self, code: str, *_: Any) -> None:
        if code not in _TYPES:
            raise pickle.UnpicklingError(f"it has an array of type {code!r}")
        self.numpy = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        if state[1] == ">":
            self.numpy = self.numpy.newbyteorder(">")


class _Array:
    """What a pickled array becomes until it has been checked."""

    def __init__(self, *_: Any) -> None:
        self.numpy = np.zeros(0, dtype=np.float32)

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, content = state
        order: Literal["F", "C"] = "F" if fortran else "C"
        self.numpy = np.frombuffer(content, dtype=dtype.numpy).reshape(shape, order=order).copy()


def _from_buffer(content: Any, dtype: _DType, shape: Any, order: str) -> _Array:
    made = _Array()
    made.__setstate__((1, shape, dtype, order == "F", content))
    return made


def _scalar(dtype: _DType, content: Any) -> Any:
    return np.frombuffer(content, dtype=dtype.numpy)[0]


def _empty_bytes() -> bytes:
    return b""


# What numpy 1 and numpy 2 write for an array, and the ordered dict of older Paddle checkpoints.
_ALLOWED = {
    ("multiarray", "_reconstruct"): _Array,
    ("multiarray", "scalar"): _scalar,
    ("numeric", "_frombuffer"): _from_buffer,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _DType,
    ("collections", "OrderedDict"): dict,
    ("_codecs", "encode"): codecs.encode,  # protocol 2 writes bytes as text and, if there are none, as bytes()
    ("__builtin__", "bytes"): _empty_bytes,
    ("builtins", "bytes"): _empty_bytes,
    ("builtins", "tuple"): tuple,  # a tensor among others than tensors, as master weights are, is (name, array)
    ("__builtin__", "tuple"): tuple,
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        for core in ("numpy.core.", "numpy._core."):
            if module.startswith(core):
                module = module[len(core):]
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no file of weights needs")
        return _ALLOWED[module, name]


def load_arrays(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a pickled dict of arrays, such as a `.pdparams` or `.pdopt` file.

    Args:
        path: the file.

    Returns:
        The dict as it was saved, names to numpy arrays, or to dicts of them. Paddle's own table of names is left out.

    Raises:
        InputError: the file is missing, cut short, is no pickled dict, or names anything but arrays.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file of weights")
    try:
        with path.open("rb") as file:
            content = _ArrayUnpickler(file, encoding="latin1").load()
    # A damaged pickle raises nearly anything; the types below are those that the opcodes and numpy raise.
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError,
            ImportError, MemoryError, OverflowError, RecursionError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a file of weights: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: not a file of weights: it holds a {type(content).__name__}, not a dict")
    content.pop("StructuredToParameterName@@", None)
    return _plain(content)


def _plain(value: Any) -> Any:
    if isinstance(value, _Array):
        return value.numpy
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], _Array):
        return value[1].numpy
    return value


def load_inference(prefix: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads the weights of an exported inference model under their structured names.

    Args:
        prefix: the path without `.pdmodel`; `.pdiparams` and `.pdiparams.info` lie beside it.

    Returns:
        Structured name to array.

    Raises:
        InputError: a file is missing or damaged.
    """
    info = load_arrays(f"{prefix}.pdiparams.info")
    for file in (f"{prefix}.pdmodel", f"{prefix}.pdiparams"):
        if not os.path.isfile(file) or not os.path.getsize(file):  # Paddle crashes on an empty one
            raise InputError(f"{file}: missing or empty")
    try:
        with old_programs():
            paddle.enable_static()
            scope = paddle.static.Scope()
            with paddle.static.scope_guard(scope):
                executor = paddle.static.Executor(paddle.CPUPlace())
                program, _, _ = paddle.static.load_inference_model(str(prefix), executor)
                names = [v.name for v in program.list_vars() if v.persistable and v.name in info]
                return {info[name]["structured_name"]: np.array(scope.find_var(name).get_tensor()) for name in names}
    except (ValueError, RuntimeError, OSError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{prefix}: no inference model that Paddle can read: {reason}") from None
    finally:
        paddle.disable_static()
