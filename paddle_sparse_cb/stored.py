"""Weights in files: `.pdparams` checkpoints and exported inference models.

`paddle.load` unpickles whatever a file names. A checkpoint from a stranger holds arrays, so only what makes arrays
and plain containers is let through here.
"""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from .errors import InputError

# What numpy 1 and numpy 2 write for an array, and the ordered dict of older Paddle checkpoints.
_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy._core.numeric", "_frombuffer"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("collections", "OrderedDict"),
    ("_codecs", "encode"),
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no file of weights needs")
        if module.startswith("numpy._core"):  # written under numpy 2, read under numpy 1
            module = module.replace("numpy._core", "numpy.core", 1)
        return super().find_class(module, name)


def load_arrays(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a pickled dict of arrays, such as a `.pdparams` file.

    Args:
        path: the file.

    Returns:
        The dict as it was saved, names to numpy arrays. Paddle's own table of names is left out.

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
        raise InputError(f"{path}: not a file of weights: {error}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: not a file of weights: it holds a {type(content).__name__}, not a dict")
    content.pop("StructuredToParameterName@@", None)
    return content


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
    paddle.enable_static()
    try:
        scope = paddle.static.Scope()
        with paddle.static.scope_guard(scope):
            executor = paddle.static.Executor(paddle.CPUPlace())
            program, _, _ = paddle.static.load_inference_model(str(prefix), executor)
            names = [v.name for v in program.list_vars() if v.persistable and v.name in info]
            return {info[name]["structured_name"]: np.array(scope.find_var(name).get_tensor()) for name in names}
    except (ValueError, RuntimeError, OSError, KeyError, TypeError) as error:
        raise InputError(f"{prefix}: no inference model that Paddle can read: {error}") from None
    finally:
        paddle.disable_static()
