"""The output folder of a recipe: a new training never deletes or mixes the files of an earlier one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ..checkpoints.position import ResumeState
from ..detection.config import block_settings
from ..errors import InputError
from ..utils.archives import archive, disk_size, list_archives, restore
from ..utils.distributed import is_rank_zero, rank_zero_info
from ..utils.files import remove_stale_scratch
from .schema import Recipe

# What a run writes, checkpoints first: whether there is something to resume from decides what a later start does.
RUN_FILES = (
    "checkpoints",
    "evaluation_*.json",
    "evaluations.json",
    "inference*",
    "manifest.json",
    "model.onnx",
    "model_*.mnn",
    "model_*.nb",
    "pictures",
    "report.html",
    "report.json",
    "report.md",
    "tensorboard",
)


_DATA_KEYS = ("image_dir", "anno_path")


def run_files(folder: Path) -> list[str]:
    """Returns the names of the files and folders that a run has left in its output folder."""
    return [file.name for pattern in RUN_FILES for file in sorted(folder.glob(pattern))]


def find_data_to_be_moved(recipe: Recipe) -> Iterator[str]:
    """Yields a message for each part of the data that a new training would move aside, or remove with `--overwrite`."""
    output = recipe.output.resolve()
    moved = [output / name for name in run_files(output)]
    for split in ("TrainDataset", "EvalDataset"):
        settings = block_settings(recipe.content.get(split))
        folder = str(settings.get("dataset_dir") or "")
        images, annotations = (Path(folder, str(settings.get(key) or "")).resolve() for key in _DATA_KEYS)
        for path in (images, annotations):
            # Names of images may begin with a folder, such as pictures/.
            if (moved and path == images == output) or any(one in (path, *path.parents) for one in moved):
                yield (
                    f"{split}: {path} is in the output folder {recipe.output}, whose files a new training moves or "
                    "removes; give another save_dir"
                )
                break


def check_space(recipe: Recipe) -> None:
    """Checks that another training as large as the earlier one fits on the disk beside it.

    Raises:
        InputError: it does not.
    """
    size = sum(disk_size(recipe.output / name) for name in run_files(recipe.output))
    free = shutil.disk_usage(recipe.output).free
    if is_rank_zero() and size > free:
        raise InputError(
            f"{recipe.output}: {_megabytes(free)} are free on this disk, and the earlier training that would be kept "
            f"there takes {_megabytes(size)}: free some space, or replace the earlier training with --overwrite"
        )


def prepare_output(recipe: Recipe, resume: ResumeState | None, overwrite: bool = False) -> ResumeState | None:
    """Moves aside what the beginning training does not continue; on rank 0, which prints where the files are.

    The files of an earlier training move to `earlier.<number>` in the output folder. A training that resumes from such
    an archive gets its files back.

    Args:
        recipe: the recipe.
        resume: the checkpoint that the training resumes from.
        overwrite: remove the files of an earlier training instead.

    Returns:
        `resume`, where it is now.
    """
    output = recipe.output
    if is_rank_zero():
        remove_stale_scratch(output)
    if resume and resume.path.parent.resolve() == recipe.checkpoints.resolve():
        return resume
    if is_rank_zero():
        _set_aside(output, overwrite)
    path = Path(os.path.abspath(resume.path)) if resume else Path()
    archives = [one for one in list_archives(output) if Path(os.path.abspath(one)) in path.parents]
    if not resume or not archives:
        return resume
    if is_rank_zero():
        restore(output, archives[0])
        rank_zero_info(f"the files of {archives[0]} were moved back to {output}")
    return replace(resume, path=output / path.relative_to(os.path.abspath(archives[0])))


def _set_aside(output: Path, overwrite: bool) -> None:
    names = run_files(output)
    if not names:
        return
    if overwrite:
        for name in names:
            _remove(output / name)
        rank_zero_info(f"removed the earlier training in {output}")
        return
    is_finished = (output / "checkpoints" / "final.pdparams").is_file()
    target = archive(output, names)
    total = sum(disk_size(path) for path in list_archives(output))
    how_to_resume = "" if is_finished else f"; it was interrupted: --resume {target / 'checkpoints'} resumes it"
    rank_zero_info(
        f"the earlier training was moved to {target}{how_to_resume} ({_megabytes(disk_size(target))}; all earlier "
        f"trainings in {output}: {_megabytes(total)}; --overwrite replaces the last one)"
    )


def _remove(path: Path) -> None:
    if path.is_dir():  # a link to a folder stays where it is, as in an archive
        for entry in list(path.iterdir()) if path.is_symlink() else [path]:
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    else:
        path.unlink()


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
