"""Weights in files: `.pdparams` checkpoints and exported inference models.

`paddle.load` unpickles whatever a file names. A checkpoint from a stranger holds arrays, so only what makes arrays
and plain containers is let through here.
"""

from __future__ import annotations

import codecs
import io
import os
import pickle
import pickletools
from pathlib import Path
from typing import Any, Literal

import numpy as np
from google.protobuf.message import DecodeError
from paddle.base.proto import framework_pb2

from ..errors import InputError
from .tensor_files import read_tensors

# A variable that is a tensor: the number of that type, and the field with the details, `lod_tensor` in Paddle 2 and
# `dense_tensor` in Paddle 3.
TENSOR = 7
_DETAILS = framework_pb2.VarType.DESCRIPTOR.fields_by_number[3].name

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


def _require_small_memo(stored: bytes) -> None:
    """Refuses a pickle that numbers what it remembers higher than it has things: Python makes room up to the number."""
    for count, (opcode, argument, _) in enumerate(pickletools.genops(stored)):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and (argument or 0) > count:
            raise pickle.UnpicklingError(f"it remembers something under the number {argument}")


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
    return parse_arrays(path.read_bytes(), path)


def parse_arrays(stored: bytes, path: Path) -> dict[str, Any]:
    """The same as `load_arrays` for the content of a file.

    Args:
        stored: the content.
        path: the file, for messages.

    Raises:
        InputError: see `load_arrays`.
    """
    try:
        _require_small_memo(stored)
        content = _plain(_ArrayUnpickler(io.BytesIO(stored), encoding="latin1").load())
    # A damaged pickle raises nearly anything; the types below are those that the opcodes and numpy raise.
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError,
            ImportError, MemoryError, OverflowError, RecursionError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a file of weights: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: not a file of weights: it holds a {type(content).__name__}, not a dict")
    content.pop("StructuredToParameterName@@", None)
    return content


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
        InputError: a file is missing or damaged, or is not of the same model as the others.
    """
    names = load_structured_names(prefix)
    shapes = {var.name: tuple(tensor_details(var).dims) for block in parse_program(prefix).blocks for var in block.vars
              if var.persistable and var.type.type == TENSOR}
    arrays = read_tensors(Path(f"{prefix}.pdiparams"), sorted(shapes.items()))
    return {names[variable]: array for variable, array in arrays.items() if variable in names}


def load_structured_names(prefix: str | os.PathLike[str]) -> dict[str, str]:
    """The structured names of an exported model's weights, by their variables in the program.

    Raises:
        InputError: `.pdiparams.info` is missing or damaged.
    """
    path = f"{prefix}.pdiparams.info"
    names = {}
    for variable, about in load_arrays(path).items():
        name = about.get("structured_name") if isinstance(about, dict) else None
        if not isinstance(variable, str) or not isinstance(name, str):
            raise InputError(f"{path}: damaged: it has no structured name for {variable!r}")
        names[variable] = name
    if len(set(names.values())) < len(names):
        raise InputError(f"{path}: damaged: two variables have the same structured name")
    return names


def parse_program(prefix: str | os.PathLike[str]) -> Any:
    """The program of an exported model, by the protobuf classes that Paddle brings: nothing is executed.

    Raises:
        InputError: `.pdmodel` is missing or damaged.
    """
    path = Path(f"{prefix}.pdmodel")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    program = framework_pb2.ProgramDesc()
    try:
        program.ParseFromString(path.read_bytes())
    except DecodeError:
        raise InputError(f"{path}: no program of Paddle's, or a damaged one") from None
    if not program.blocks:
        raise InputError(f"{path}: a program without operators")
    for block in program.blocks:
        for name in [*(var.name for var in block.vars), *(op.type for op in block.ops)]:
            if not isinstance(name, str):  # what is no UTF-8 comes as bytes
                raise InputError(f"{path}: damaged: {name!r} is no name")
    return program


def tensor_details(var: Any) -> Any:
    """Type and dimensions of a program's variable that is a tensor."""
    return getattr(var.type, _DETAILS).tensor
