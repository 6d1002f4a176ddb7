"""Keeps the checkpoints of two trainings apart."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError
from ..utils.archives import archive
from .position import CHECKPOINT_NAME, ResumeState, position_of
from .state import load_state


def archive_other_trainings(folder: Path, resume: ResumeState | None) -> Path | None:
    """Moves the checkpoints that the beginning training does not continue to an archive in their folder.

    What remains in the folder belongs to this training, so that `find_checkpoint` cannot return another one's
    checkpoint.

    Args:
        folder: the folder in which a training will save.
        resume: the checkpoint that it resumes from. If it is in this folder, the checkpoints up to its position stay.

    Returns:
        The archive; None if there was nothing to move.
    """
    names = {file.stem for file in folder.glob("*.pd*") if file.suffix == ".pdsparse" or _is_numbered(file)}
    if resume is not None and resume.path.parent.resolve() == folder.resolve():
        names = {name for name in names if _is_later(folder / f"{name}.pdsparse", resume)}
    files = sorted(file.name for file in folder.glob("*.pd*") if file.stem in names)
    return archive(folder, files) if files else None


def _is_numbered(file: Path) -> bool:
    return CHECKPOINT_NAME.fullmatch(f"{file.stem}.pdsparse") is not None


def _is_later(path: Path, resume: ResumeState) -> bool:
    """Whether a complete checkpoint comes after the one that is resumed; incomplete ones are written again."""
    try:
        return position_of(path, load_state(path)) > resume.position
    except InputError:
        return False
