"""Archives within a folder: files that are not to be mixed with new ones move to `earlier.1`, `earlier.2` and so on."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

_NAME = re.compile(r"earlier\.(\d+)")


def list_archives(folder: Path) -> list[Path]:
    """Returns the archives of a folder, the oldest one first."""
    numbers = {path: int(found[1]) for path in folder.glob("earlier.*") if (found := _NAME.fullmatch(path.name))}
    return sorted(numbers, key=numbers.__getitem__)


def archive(folder: Path, names: Sequence[str]) -> Path:
    """Moves entries of a folder to a new archive.

    A link to a folder stays where it is, because its owner wants the files to be elsewhere. The content of that folder
    moves to an archive in it, and the new archive has a link to that one.

    Args:
        folder: the folder.
        names: names of entries, moved in this order.

    Returns:
        The new archive.
    """
    archives = list_archives(folder)
    number = int(archives[-1].suffix[1:]) + 1 if archives else 1
    target = folder / f"earlier.{number}"
    target.mkdir()
    for name in names:
        entry = folder / name
        if entry.is_symlink() and entry.is_dir():
            content = entry.resolve()
            (target / name).symlink_to(archive(content, archivable(content)))
        else:
            os.rename(entry, target / name)
    return target


def restore(folder: Path, archived: Path) -> None:
    """Moves the content of an archive back to its folder, where nothing of the same name may be left."""
    for entry in sorted(archived.iterdir()):
        original = folder / entry.name
        if entry.is_symlink() and entry.is_dir() and original.is_dir():
            restore(original, entry.resolve())
            entry.unlink()
        else:
            os.rename(entry, original)
    archived.rmdir()


def archivable(folder: Path) -> list[str]:
    """Returns the names of all entries of a folder that are neither hidden nor archives."""
    return sorted(
        path.name for path in folder.iterdir() if not path.name.startswith(".") and not _NAME.fullmatch(path.name)
    )


def disk_size(path: Path) -> int:
    """Returns the bytes of a file, or of all files below a folder; links to folders below it are not followed."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)
