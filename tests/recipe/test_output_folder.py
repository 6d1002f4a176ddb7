import os
import shutil
from types import SimpleNamespace

import pytest
from helpers import RECIPES

from paddle_sparse_cb import InputError, ResumeState
from paddle_sparse_cb.checkpoints.state import TrainingState, save_state
from paddle_sparse_cb.recipe.output_folder import check_space, find_data_to_be_moved, prepare_output
from paddle_sparse_cb.recipe.preflight import check_recipe
from paddle_sparse_cb.recipe.schema import read_recipe

FILES = (
    "evaluation_dense.json",
    "evaluations.json",
    "pictures/eval_1_dense.jpg",
    "report.html",
    "report.json",
    "report.md",
    "model_sparse.nb",
    "inference/model.pdmodel",
    "tensorboard/run",
)


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return read_recipe(RECIPES / "picodet_s_416_trees_sparse75.yml")


def write_run(recipe, text, finished=True):
    """Writes all files of a run with the given content, and what is no file of a run."""
    names = [*FILES, "checkpoints/1.pdparams", *(["checkpoints/final.pdparams"] if finished else [])]
    for name in [*names, "notes.txt"]:
        path = recipe.output / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    save_state(TrainingState(1, {}, {}, {"epoch": 1, "batch": 2}), recipe.checkpoints / "1.pdsparse")


def contents(folder):
    """The different contents of the files of a run in a folder."""
    files = [folder / name for name in [*FILES, "checkpoints/1.pdparams"]]
    return {file.read_text() for file in files if file.is_file()} if any(map(os.path.exists, files)) else set()


def test_starting_again_and_again_keeps_every_finished_training_with_all_its_files(recipe, capsys):
    for number, text in enumerate(("first", "second", "third"), start=1):
        write_run(recipe, text)
        prepare_output(recipe, None)
        archived = recipe.output / f"earlier.{number}"
        assert f"the earlier training was moved to {archived} (" in capsys.readouterr().out
        assert contents(archived) == {text}
        assert (archived / "checkpoints" / "final.pdparams").is_file()
    assert contents(recipe.output) == set()
    assert contents(recipe.output / "earlier.1") == {"first"}
    assert (recipe.output / "notes.txt").is_file()


def test_nothing_is_moved_or_printed_in_a_new_folder(recipe, capsys):
    recipe.output.mkdir(parents=True)
    assert prepare_output(recipe, None) is None
    assert list(recipe.output.iterdir()) == []
    assert capsys.readouterr().out == ""


def test_with_overwrite_the_last_training_is_replaced_and_earlier_ones_are_kept(recipe, capsys):
    write_run(recipe, "first")
    prepare_output(recipe, None)
    write_run(recipe, "second")
    prepare_output(recipe, None, overwrite=True)
    assert f"removed the earlier training in {recipe.output}" in capsys.readouterr().out
    assert contents(recipe.output) == set()
    assert [path.name for path in recipe.output.glob("earlier.*")] == ["earlier.1"]
    assert contents(recipe.output / "earlier.1") == {"first"}


def test_an_interrupted_training_resumes_from_its_archive_with_all_its_files(recipe, capsys):
    write_run(recipe, "interrupted", finished=False)
    prepare_output(recipe, None)
    archived = recipe.output / "earlier.1"
    assert f"; it was interrupted: --resume {archived / 'checkpoints'} resumes it (" in capsys.readouterr().out
    write_run(recipe, "later")
    resume = prepare_output(recipe, ResumeState.open(archived / "checkpoints" / "1.pdsparse"))
    assert resume.path == recipe.checkpoints / "1.pdsparse"
    assert contents(recipe.output) == {"interrupted"}
    assert contents(recipe.output / "earlier.2") == {"later"}
    assert not archived.exists()


def test_a_resumed_training_keeps_its_files_where_they_are(recipe):
    write_run(recipe, "interrupted", finished=False)
    found = ResumeState.open(recipe.checkpoints / "1.pdsparse")
    assert prepare_output(recipe, found) is found
    assert contents(recipe.output) == {"interrupted"}


def test_a_training_resumed_from_another_folder_does_not_mix_with_the_files_of_this_one(recipe, tmp_path):
    write_run(recipe, "other")
    shutil.copytree(recipe.checkpoints, tmp_path / "copied")
    prepare_output(recipe, ResumeState.open(tmp_path / "copied" / "1.pdsparse"))
    assert contents(recipe.output) == set()
    assert contents(recipe.output / "earlier.1") == {"other"}


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_link_to_a_checkpoints_folder_keeps_leading_to_it(recipe, tmp_path, overwrite):
    disk = tmp_path / "disk"
    disk.mkdir()
    recipe.output.mkdir(parents=True)
    recipe.checkpoints.symlink_to(os.path.relpath(disk, recipe.output))
    for text in ("first", "second"):
        write_run(recipe, text)
        prepare_output(recipe, None, overwrite)
        assert recipe.checkpoints.is_symlink()
        assert recipe.checkpoints.resolve() == disk
        assert list(recipe.checkpoints.glob("*.pd*")) == []
    assert contents(recipe.output / "earlier.2") == (set() if overwrite else {"second"})
    if not overwrite:
        archived = recipe.output / "earlier.1" / "checkpoints" / "1.pdsparse"
        resume = prepare_output(recipe, ResumeState.open(archived))
        assert contents(recipe.output) == {"first"}
        assert resume.path.resolve() == disk / "1.pdsparse"


def test_a_link_to_a_missing_folder_is_an_error_before_anything_is_written(recipe):
    recipe.output.mkdir(parents=True)
    recipe.checkpoints.symlink_to("disk")
    with pytest.raises(InputError, match="checkpoints is a link to disk, which does not exist"):
        check_recipe(recipe)


def test_where_the_disk_would_fill_overwrite_is_asked_for(recipe, monkeypatch):
    write_run(recipe, "x" * 2000)
    check_space(recipe)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(InputError, match=r"0\.0 MB are free on this disk.* replace the earlier training with --overw"):
        check_space(recipe)


@pytest.mark.parametrize("split", ["TrainDataset", "EvalDataset"])
@pytest.mark.parametrize(
    ("images", "annotations", "named"),
    [("pictures", "../boxes.json", "pictures"), ("../images", "pictures/boxes.json", "boxes.json"), ("", "b.json", "")],
)
def test_data_in_a_folder_that_a_training_moves_or_removes_are_refused(recipe, split, images, annotations, named):
    data = {"dataset_dir": str(recipe.output), "image_dir": images, "anno_path": annotations}
    recipe.content[split] = {**recipe.content[split], **data}
    assert list(find_data_to_be_moved(recipe)) == []  # there is nothing to be moved
    write_run(recipe, "first")
    with pytest.raises(InputError, match=f"{split}: .*{named} is in the output folder .*; give another save_dir"):
        check_recipe(recipe)
