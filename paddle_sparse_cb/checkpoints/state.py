"""The pruning state beside a checkpoint: what a resumed training needs to prune on as if it had never stopped.

A `.pdsparse` file is a line that says what it is, the digest of the rest, a JSON header and the masks at one bit a
weight. Nothing in it is code, and a changed bit anywhere is found before anything is used.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from .._version import __version__
from ..errors import InputError
from ..utils.files import atomic_write

_VERSIONS = {"paddle": paddle.__version__, "paddle_sparse_cb": __version__}
_MAGIC = b"paddle_sparse_cb pruning state 1\n"
_DIGEST = hashlib.sha256().digest_size


@dataclass(frozen=True)
class PruningState:
    """What a pruner knows beside the weights.

    Attributes:
        step: optimizer steps done.
        settings: what has to be equal for a training to go on: schedule, plan, scope, block; plain values.
        masks: for each structured name bool of the weight's shape, True where a weight lives. A weight without one
            is not pruned yet.
        training: where the training was: epoch, batch and the like; plain values.
        files: the files that this state belongs to, by name, and the digest of each.
        versions: of the packages that wrote it.
    """

    step: int
    settings: dict[str, Any]
    masks: Mapping[str, np.ndarray]
    training: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=lambda: dict(_VERSIONS))


def save_state(state: PruningState, path: str | os.PathLike[str]) -> None:
    """Writes a state, whole or not at all.

    Example:
        >>> import numpy as np, tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "3.pdsparse")
        ...     save_state(PruningState(7, {"ratio": 0.75}, {"0.weight": np.eye(4, dtype=bool)}), path)
        ...     load_state(path).step
        7
    """
    header = {"step": state.step, "settings": state.settings, "training": state.training, "files": state.files,
              "versions": state.versions, "masks": [[name, list(mask.shape)] for name, mask in state.masks.items()]}
    text = json.dumps(header, allow_nan=False).encode()
    packed = [np.packbits(mask.reshape(-1)).tobytes() for mask in state.masks.values()]
    body = b"".join([len(text).to_bytes(8, "little"), text, *packed])
    with atomic_write(path) as scratch:
        scratch.write_bytes(_MAGIC + hashlib.sha256(body).digest() + body)


def load_state(path: str | os.PathLike[str]) -> PruningState:
    """Reads a state.

    Raises:
        InputError: the file is missing, no pruning state, of another format, cut short or changed.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such pruning state")
    content = path.read_bytes()
    if not content.startswith(_MAGIC):
        raise InputError(f"{path}: no pruning state that this version can read; it begins with "
                         f"{content[:len(_MAGIC)]!r}")
    digest, body = content[len(_MAGIC):len(_MAGIC) + _DIGEST], content[len(_MAGIC) + _DIGEST:]
    if hashlib.sha256(body).digest() != digest:
        raise InputError(f"{path}: damaged: its content does not have the digest written in it")
    try:
        return _parsed(body)
    # The digest says that the file is as it was written; what a stranger wrote may still make no sense.
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError, MemoryError) as error:
        raise InputError(f"{path}: no valid pruning state: {' '.join(str(error).split())}") from None


def _parsed(body: bytes) -> PruningState:
    length = int.from_bytes(body[:8], "little")
    header = json.loads(body[8:8 + length])
    step, settings, training = header["step"], header["settings"], header["training"]
    files, versions = header["files"], header["versions"]
    if type(step) is not int or step < 0:
        raise ValueError(f"step is a whole number, got {step!r}")
    if not all(isinstance(block, dict) for block in (settings, training, files, versions)):
        raise ValueError("settings, training, files and versions are mappings")
    masks, start = {}, 8 + length
    for name, shape in header["masks"]:
        if not isinstance(name, str) or not all(type(size) is int and size >= 0 for size in shape):
            raise ValueError(f"a mask has a name and a shape, got {name!r} and {shape!r}")
        size = math.prod(shape)
        end = start + -(-size // 8)
        if end > len(body):
            raise ValueError(f"the mask of {name} is cut short")
        bits = np.frombuffer(body[start:end], np.uint8)
        masks[name] = np.unpackbits(bits, count=size).astype(bool).reshape(shape)
        start = end
    if start != len(body):
        raise ValueError(f"{len(body) - start} bytes are left over")
    return PruningState(step, settings, masks, training, files, versions)


def check_same(found: Mapping[str, Any], wanted: Mapping[str, Any], where: str | Path) -> None:
    """Compares settings of a state with those of the training that is to go on.

    Args:
        found: of the state.
        wanted: of the training.
        where: the state's file, for the message.

    Raises:
        InputError: they differ; the message names the first difference and both sides.
    """
    for key in [*wanted, *(key for key in found if key not in wanted)]:
        theirs, mine = found.get(key, "nothing"), wanted.get(key, "nothing")
        if isinstance(theirs, Mapping) and isinstance(mine, Mapping):
            check_same(theirs, mine, f"{where}: {key}")
        elif theirs != mine:
            raise InputError(f"{where}: its {key} is {_short(theirs)}, that of this training is {_short(mine)}")


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 200 else text[:200] + " ..."


def file_digest(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file, as hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def load_verified(path: str | os.PathLike[str]) -> PruningState:
    """Reads a state whose checkpoint is whole.

    Raises:
        InputError: as `load_state` and `verify_digests` do.
    """
    path = Path(path)
    state = load_state(path)
    verify_digests(state, path)
    return state


def verify_digests(state: PruningState, path: Path) -> None:
    """Makes sure that the files a state belongs to lie beside it as they were saved.

    Raises:
        InputError: one is missing or another, as after a kill between two files.
    """
    for name, digest in state.files.items():
        file = path.parent / Path(name).name  # nothing but a name: a stranger's state leads nowhere else
        if not file.is_file():
            raise InputError(f"{path}: {file} is missing, which this state belongs to")
        if file_digest(file) != digest:
            raise InputError(f"{path}: {file} is not the file that this state belongs to: it was saved at another time")
