"""Reads weights from files without executing anything in them: pickled checkpoints and exported models.

`paddle.load` unpickles whatever a file names, which may run any code. A checkpoint contains only arrays and plain
containers, so `load_arrays` accepts nothing else.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from paddle.base.proto import framework_pb2

from ..errors import InputError
from .array_pickles import load_pickle
from .tensor_files import read_tensors

# The type number of a tensor variable. The field with its dtype and dims is called `lod_tensor` in Paddle 2 and
# `dense_tensor` in Paddle 3.
TENSOR = 7
_MAX_PROGRAM = 64 << 20  # bytes of a .pdmodel; parsed it takes 20 times that, and large networks have 10 MB
_MAX_FILE = 8 << 30  # bytes of a pickled file; 100 million weights, the limit of a network, have 400 MB
_TENSOR_FIELD = framework_pb2.VarType.DESCRIPTOR.fields_by_number[3].name


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
    if path.stat().st_size > _MAX_FILE:  # a file of holes takes no space on the disk
        raise InputError(f"{path}: a weight file must have at most {_MAX_FILE:,} bytes, got {path.stat().st_size:,}")
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
        content = load_pickle(stored)
    except (EOFError, MemoryError, ValueError) as error:
        raise InputError(f"{path}: not a weight file: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: not a weight file: it contains a {type(content).__name__}, not a dict")
    content.pop("StructuredToParameterName@@", None)
    return content


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
        InputError: `.pdmodel` is missing, damaged or larger than 64 MiB.
    """
    path = Path(f"{prefix}.pdmodel")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if path.stat().st_size > _MAX_PROGRAM:
        raise InputError(f"{path}: a program must have at most {_MAX_PROGRAM:,} bytes, got {path.stat().st_size:,}")
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
