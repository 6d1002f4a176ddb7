"""The `.pdsparse` file beside a checkpoint: what a resumed training needs to continue as if it had never stopped.

The file is a line with the format's name, the digest of the rest, a JSON header, and the masks at one bit per weight.
Nothing in it is executed, and a changed bit anywhere is detected before anything is used.

safetensors (0.8.0) would keep some of these guarantees and add none. It has no digest: a flipped bit in the data is
loaded without an error. It has no type for bits: a boolean takes a byte, so masks would still be packed here, and
stored as anonymous bytes whose shapes are kept elsewhere. Its header holds strings only, so that step, settings and
digests would be JSON inside a string. The arrays of `.pdema` are written by `paddle.save` and read by the restricted
unpickler, as those of `.pdparams` and `.pdopt`, whose format Paddle decides and whose reader is needed in any case.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from .._version import __version__
from ..errors import InputError
from ..pruning.state import PrunerState
from ..utils.files import atomic_write

_VERSIONS = {"paddle": paddle.__version__, "paddle_sparse_cb": __version__}
MAGIC = b"paddle_sparse_cb pruning state 1\n"
DIGEST_SIZE = hashlib.sha256().digest_size
_MAX_DIMENSIONS = 32  # numpy's limit; the product of a million sizes would take minutes


@dataclass(frozen=True)
class TrainingState(PrunerState):
    """The content of a `.pdsparse` file: the state of the pruner, and of the training around it.

    Attributes:
        training: epoch, batch, number of ranks and the like; plain values.
        files: the names of the checkpoint's other files and their SHA-256 digests.
        versions: versions of the packages that wrote it.
    """

    training: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=lambda: dict(_VERSIONS))


def save_state(state: TrainingState, path: str | os.PathLike[str]) -> None:
    """Writes a state; the file is complete or not there.

    Raises:
        InputError: it contains a value that JSON cannot represent, such as NaN.

    Examples:
        >>> import numpy as np, tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "3.pdsparse")
        ...     save_state(TrainingState(7, {"ratio": 0.75}, {"0.weight": np.eye(4, dtype=bool)}), path)
        ...     load_state(path).step
        7
    """
    header = {
        "step": state.step,
        "settings": state.settings,
        "training": state.training,
        "files": state.files,
        "versions": state.versions,
        "masks": [[name, list(mask.shape)] for name, mask in state.masks.items()],
    }
    try:
        text = json.dumps(header, allow_nan=False, default=_to_python).encode()
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be saved: the state of a training must be plain finite values: {error}"
        ) from None
    packed = [np.packbits(mask.reshape(-1)).tobytes() for mask in state.masks.values()]
    body = b"".join([len(text).to_bytes(8, "little"), text, *packed])
    with atomic_write(path) as scratch:
        scratch.write_bytes(MAGIC + hashlib.sha256(body).digest() + body)


def _to_python(value: Any) -> Any:
    """Converts NumPy's numbers, which JSON does not know."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} is not one")


def load_state(path: str | os.PathLike[str]) -> TrainingState:
    """Reads a state.

    Raises:
        InputError: the file is missing, truncated, changed, or of another format.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    content = path.read_bytes()
    if not content.startswith(MAGIC):
        raise InputError(f"{path}: not a .pdsparse file of this version; it begins with {content[: len(MAGIC)]!r}")
    digest, body = content[len(MAGIC) : len(MAGIC) + DIGEST_SIZE], content[len(MAGIC) + DIGEST_SIZE :]
    if hashlib.sha256(body).digest() != digest:
        raise InputError(f"{path}: damaged: its content does not match its digest")
    try:
        return _parsed(body)
    # A matching digest says that the file is unchanged, not that a stranger wrote valid content.
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError, MemoryError) as error:
        raise InputError(f"{path}: not a valid .pdsparse file: {' '.join(str(error).split())}") from None


def _parsed(body: bytes) -> TrainingState:
    length = int.from_bytes(body[:8], "little")
    header = json.loads(body[8 : 8 + length])
    step, settings, training = header["step"], header["settings"], header["training"]
    files, versions = header["files"], header["versions"]
    if type(step) is not int or step < 0:
        raise ValueError(f"step must be a whole number, got {step!r}")
    if not all(isinstance(block, dict) for block in (settings, training, files, versions)):
        raise ValueError("settings, training, files and versions must be mappings")
    masks, start = {}, 8 + length
    for name, shape in header["masks"]:
        is_shape = len(shape) <= _MAX_DIMENSIONS and all(type(size) is int and size >= 0 for size in shape)
        if not isinstance(name, str) or not is_shape:
            raise ValueError(f"a mask must have a name and a shape, got {name!r} and {shape[:8]!r}")
        size = math.prod(shape)
        end = start + -(-size // 8)
        if end > len(body):
            raise ValueError(f"the mask of {name} is truncated")
        bits = np.frombuffer(body[start:end], np.uint8)
        masks[name] = np.unpackbits(bits, count=size).astype(bool).reshape(shape)
        start = end
    if start != len(body):
        raise ValueError(f"{len(body) - start} bytes follow the last mask")
    return TrainingState(step, settings, masks, training, files, versions)


def file_digest(path: str | os.PathLike[str]) -> str:
    """Returns the SHA-256 digest of a file in hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
