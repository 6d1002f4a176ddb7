"""`manifest.json`: which files were made, from which files, and by what.

Each file has its SHA-256 digest and the digests of the files that it was made from, so that a file that was changed,
lost, or made from an earlier version of another one is found.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import paddle

from .._version import __version__
from ..errors import InputError
from ..utils.files import write_text

NAME = "manifest.json"
# Of the exported model, beside `.pdmodel`.
_EXPORTED = (".pdmodel", ".pdiparams", ".pdiparams.info")
_VERSIONS = {"paddle": paddle.__version__, "paddle_sparse_cb": __version__}


def exported_files(prefix: Path) -> list[Path]:
    """Returns the files of an exported model.

    Args:
        prefix: the model's path without `.pdmodel`.
    """
    return [Path(f"{prefix}{suffix}") for suffix in _EXPORTED]


def record(
    output: Path, files: Iterable[Path], sources: Iterable[Path] = (), versions: Mapping[str, str] | None = None
) -> None:
    """Adds files to the manifest of a folder.

    Args:
        output: the folder of the manifest.
        files: files that exist; earlier entries are replaced.
        sources: the files that they were made from.
        versions: those of the packages that made them, beside Paddle's and this package's.
    """
    entries = _read(output) if (output / NAME).is_file() else {}
    made_from = {_relative(source, output): _digest(source) for source in sources}
    made_by = {**_VERSIONS, **(versions or {})}
    for file in files:
        entries[_relative(file, output)] = {"sha256": _digest(file), "made_from": made_from, "versions": made_by}
    write_text(output / NAME, _render(entries))


def discard(output: Path, file: Path) -> None:
    """Removes a file and its entry in the manifest of a folder; a file that has none is kept."""
    entries = _read(output) if (output / NAME).is_file() else {}
    if entries.pop(_relative(file, output), None) is not None:
        write_text(output / NAME, _render(entries))
        file.unlink(missing_ok=True)


def find_problems(output: Path, required: Iterable[Path] = ()) -> list[str]:
    """Compares the files of a folder with its manifest.

    Args:
        output: the folder.
        required: files that must be in the manifest.

    Returns:
        One line for each file that is missing, changed, not recorded, or made from another version of its sources.

    Raises:
        InputError: the manifest is damaged.
    """
    if not (output / NAME).is_file():
        return [f"{output / NAME} is missing, so that nothing says which files belong together"]
    entries = _read(output)
    digests = {name: _digest(output / name) for name in entries if (output / name).is_file()}
    problems = []
    for name, entry in entries.items():
        if name not in digests:
            problems.append(f"{output / name} is missing")
        elif digests[name] != entry["sha256"]:
            problems.append(f"{output / name} was changed after it was made")
        for source, digest in entry["made_from"].items():
            if _current(output, source, digests) not in (digest, None):
                problems.append(f"{output / name} is stale: it was made from another {Path(source).name}")
    for file in required:
        if _relative(file, output) not in entries:
            problems.append(f"{file} is {'not in ' + NAME if file.is_file() else 'missing'}")
    return problems


def _current(output: Path, source: str, digests: Mapping[str, str]) -> str | None:
    """The digest of a source now; None for one that is not in the folder, such as a checkpoint from elsewhere."""
    if source in digests:
        return digests[source]
    return _digest(output / source) if (output / source).is_file() else None


def _relative(file: Path, output: Path) -> str:
    return Path(os.path.relpath(file, output)).as_posix()


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _render(entries: Mapping[str, Any]) -> str:
    """Returns the text of a manifest, with a digest of the entries, so that a changed manifest is found too."""
    files = dict(sorted(entries.items()))
    digest = hashlib.sha256(json.dumps(files).encode()).hexdigest()
    return json.dumps({"files": files, "sha256": digest}, indent=1) + "\n"


def _read(output: Path) -> dict[str, Any]:
    path = output / NAME
    try:
        text = path.read_text(encoding="utf-8")
        entries = json.loads(text)["files"]
        is_valid = all(_is_valid(name, entry) for name, entry in entries.items()) and text == _render(entries)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(f"{path}: damaged: {type(error).__name__} {error}") from None
    if not is_valid:
        raise InputError(f"{path}: damaged: its content does not match its digest")
    return dict(entries)


def _is_valid(name: str, entry: Any) -> bool:
    digests = [entry["sha256"], *entry["made_from"].values()]
    return bool(name) and "\0" not in name and all(isinstance(digest, str) for digest in digests)
