"""Reads weights from files without executing anything in them: pickled checkpoints and exported models.

`paddle.load` unpickles whatever a file names, which may run any code. A checkpoint contains only arrays and plain
containers, so `load_arrays` accepts nothing else.
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

# The type number of a tensor variable. The field with its dtype and dims is called `lod_tensor` in Paddle 2 and
# `dense_tensor` in Paddle 3.
TENSOR = 7
_TENSOR_FIELD = framework_pb2.VarType.DESCRIPTOR.fields_by_number[3].name

# The dtypes of weights. Any other is refused, since numpy's own `dtype.__setstate__` and `ndarray.__setstate__` trust
# their arguments and crash on those of a damaged file.
_DTYPES = frozenset({"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"})


class _DType:
    """Stands for a pickled `numpy.dtype` and accepts plain dtypes only."""

    def __init__(self, code: str, *_: Any) -> None:
        if code not in _DTYPES:
            raise pickle.UnpicklingError(f"it contains an array of dtype {code!r}")
        self.numpy = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        if state[1] == ">":
            self.numpy = self.numpy.newbyteorder(">")


class _Array:
    """Stands for a pickled array until its content has been checked."""

    def __init__(self, *_: Any) -> None:
        self.numpy = np.zeros(0, dtype=np.float32)

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, content = state
        order: Literal["F", "C"] = "F" if fortran else "C"
        self.numpy = np.frombuffer(content, dtype=dtype.numpy).reshape(shape, order=order).copy()


def _from_buffer(content: Any, dtype: _DType, shape: Any, order: str) -> _Array:
    array = _Array()
    array.__setstate__((1, shape, dtype, order == "F", content))
    return array


def _scalar(dtype: _DType, content: Any) -> Any:
    return np.frombuffer(content, dtype=dtype.numpy)[0]


def _empty_bytes() -> bytes:
    return b""


# The names in a pickle that numpy 1 or numpy 2 wrote for an array, and those of Paddle's containers.
_ALLOWED = {
    ("multiarray", "_reconstruct"): _Array,
    ("multiarray", "scalar"): _scalar,
    ("numeric", "_frombuffer"): _from_buffer,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _DType,
    ("collections", "OrderedDict"): dict,  # older checkpoints of Paddle
    ("_codecs", "encode"): codecs.encode,  # protocol 2 stores bytes as text, and empty bytes as a call of bytes()
    ("__builtin__", "bytes"): _empty_bytes,
    ("builtins", "bytes"): _empty_bytes,
    ("builtins", "tuple"): tuple,  # Paddle stores a tensor in a nested dict, such as a master weight, as (name, array)
    ("__builtin__", "tuple"): tuple,
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        for core in ("numpy.core.", "numpy._core."):
            if module.startswith(core):
                module = module[len(core) :]
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is not allowed in a weight file")
        return _ALLOWED[module, name]


def _check_memo_indices(stored: bytes) -> None:
    """Refuses memo indices above the number of opcodes: the unpickler would allocate memory up to the index."""
    for count, (opcode, argument, _) in enumerate(pickletools.genops(stored)):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and (argument or 0) > count:
            raise pickle.UnpicklingError(f"it uses the memo index {argument} at opcode {count}")


def load_arrays(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a pickled dict of arrays, such as a `.pdparams` or `.pdopt` file.

    Args:
        path: the file.

    Returns:
        The dict as it was saved, from names to numpy arrays or nested dicts of them, without the table of names that
        Paddle adds.

    Raises:
        InputError: the file is missing or truncated, is not a pickled dict, or contains anything but arrays.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    return parse_arrays(path.read_bytes(), path)


def parse_arrays(stored: bytes, path: Path) -> dict[str, Any]:
    """Does the same as `load_arrays` for the content of a file.

    Args:
        stored: the content.
        path: the file, for error messages.

    Returns:
        See `load_arrays`.

    Raises:
        InputError: see `load_arrays`.
    """
    try:
        _check_memo_indices(stored)
        content = _to_numpy(_ArrayUnpickler(io.BytesIO(stored), encoding="latin1").load())
    # A damaged pickle raises nearly anything. These are the types that the opcodes and numpy raise.
    except (
        pickle.UnpicklingError,
        EOFError,
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
        ImportError,
        MemoryError,
        OverflowError,
        RecursionError,
        UnicodeDecodeError,
    ) as error:
        raise InputError(f"{path}: not a weight file: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: not a weight file: it contains a {type(content).__name__}, not a dict")
    content.pop("StructuredToParameterName@@", None)
    return content


def _to_numpy(value: Any) -> Any:
    if isinstance(value, _Array):
        return value.numpy
    if isinstance(value, dict):
        return {name: _to_numpy(inner) for name, inner in value.items()}
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], _Array):
        return value[1].numpy
    return value


def load_inference(prefix: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads the weights of an exported model.

    Args:
        prefix: the model's path without `.pdmodel`. `.pdiparams` and `.pdiparams.info` are read too.

    Returns:
        The arrays by structured name.

    Raises:
        InputError: a file is missing or damaged, or the files are of different models.
    """
    names = load_structured_names(prefix)
    return {names[variable]: array for variable, array in load_parameters(prefix).items() if variable in names}


def load_parameters(prefix: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads the weights of an exported model by their variables in the program, such as `conv2d_0.w_0`.

    Args:
        prefix: the model's path without `.pdmodel`. `.pdiparams` is read too.

    Raises:
        InputError: a file is missing or damaged, or the files are of different models.
    """
    shapes = {
        var.name: tuple(tensor_details(var).dims)
        for block in parse_program(prefix).blocks
        for var in block.vars
        if var.persistable and var.type.type == TENSOR
    }
    return read_tensors(Path(f"{prefix}.pdiparams"), sorted(shapes.items()))


def load_structured_names(prefix: str | os.PathLike[str]) -> dict[str, str]:
    """Reads the structured names of an exported model's weights from `.pdiparams.info`.

    Args:
        prefix: the model's path without `.pdmodel`.

    Returns:
        The structured name of each variable of the program that is a weight.

    Raises:
        InputError: the file is missing or damaged.
    """
    path = f"{prefix}.pdiparams.info"
    names = {}
    for variable, about in load_arrays(path).items():
        name = about.get("structured_name") if isinstance(about, dict) else None
        if not isinstance(variable, str) or not isinstance(name, str):
            raise InputError(f"{path}: damaged: no structured name for {variable!r}")
        names[variable] = name
    if len(set(names.values())) < len(names):
        raise InputError(f"{path}: damaged: two variables have the same structured name")
    return names


def parse_program(prefix: str | os.PathLike[str]) -> Any:
    """Parses the program of an exported model with the protobuf classes of Paddle; nothing is executed.

    Args:
        prefix: the model's path without `.pdmodel`.

    Returns:
        The `ProgramDesc` message, with at least one block.

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
        raise InputError(f"{path}: not a Paddle program, or damaged") from None
    if not program.blocks:
        raise InputError(f"{path}: damaged: a program without blocks")
    for block in program.blocks:
        for name in [*(var.name for var in block.vars), *(op.type for op in block.ops)]:
            if not isinstance(name, str):  # protobuf returns invalid UTF-8 as bytes
                raise InputError(f"{path}: damaged: {name!r} is not a name")
    return program


def tensor_details(var: Any) -> Any:
    """Returns the dtype and dims message of a variable that is a tensor."""
    return getattr(var.type, _TENSOR_FIELD).tensor
