import pytest
from helpers import RECIPES

from paddle_sparse_cb import InputError
from paddle_sparse_cb.callbacks.resume import TrainingPosition
from paddle_sparse_cb.checkpoints.state import PruningState, save_state
from paddle_sparse_cb.recipe import resume as resumption
from paddle_sparse_cb.recipe.schema import read_recipe


def recipe(*options):
    return read_recipe(RECIPES / "picodet_s_416_trees_sparse75.yml", options=options)


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """A checkpoint after two of four batches of the second epoch."""
    monkeypatch.chdir(tmp_path)
    folder = resumption.folder(recipe())
    training = {**resumption.checkpoint_metadata(recipe(), {"mAP": 0.5}), "epoch": 1, "batch": 2, "batches": 4}
    folder.mkdir(parents=True)
    save_state(PruningState(6, {}, {}, training), folder / "1_2.pdsparse")
    return folder


def test_the_newest_one_is_found_and_said(saved, capsys):
    found = resumption.find(recipe(), resumption.LAST)
    assert found.path == saved / "1_2.pdsparse"
    assert found.place(4) == TrainingPosition(1, 2)
    assert found.dense == {"mAP": 0.5}
    assert capsys.readouterr().out == f"going on from {found.path}: 2 of 4 batches of epoch 1 are done\n"


@pytest.mark.parametrize("name", ["1_2", "1_2.pdparams", "1_2.pdsparse", "1_2.pdopt", ""])
def test_one_can_be_named_with_or_without_an_ending_or_by_its_folder(saved, name):
    assert resumption.find(recipe(), str(saved / name)).path == saved / "1_2.pdsparse"


def test_a_new_training_looks_for_none(saved):
    assert resumption.find(recipe(), None) is None


def test_without_one_it_is_from_the_begin(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert resumption.find(recipe(), resumption.LAST) is None
    assert capsys.readouterr().out.endswith("/checkpoints: from the begin\n")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="--resume empty: no whole checkpoint in this folder"):
        resumption.find(recipe(), "empty")


@pytest.mark.parametrize(("option", "said"), [
    ("LearningRate.base_lr=0.5", "LearningRate: its base_lr is .*, that of this training is 0.5"),
    ("Sparsity.ratio=0.85", "Sparsity: its ratio is 0.75, that of this training is 0.85"),
    ("epoch=24", "its epoch is 12, that of this training is 24"),
    ("use_ema=true", "its use_ema is nothing, that of this training is True"),
    ("TrainReader.batch_size=4", "TrainReader: its batch_size is 8, that of this training is 4"),
])
def test_another_recipe_names_both_sides_and_can_be_overridden(saved, option, said):
    with pytest.raises(InputError, match=rf"1_2\.pdsparse.*{said}"):
        resumption.find(recipe(option), resumption.LAST)
    assert resumption.find(recipe(option), resumption.LAST, changed=True)


@pytest.mark.parametrize("option", ["worker_num=3", "log_iter=1", "Sparsity.log_freq=1", "snapshot_iter=2"])
def test_what_changes_no_weight_may_be_another(saved, option):
    assert resumption.find(recipe(option), resumption.LAST)


def test_within_an_epoch_of_another_length_there_is_no_place(saved):
    found = resumption.find(recipe(), resumption.LAST)
    with pytest.raises(InputError, match=r"saved after 2 of 4 batches of epoch 1, and this training has 8 in an epoch"):
        found.place(8, changed=True)
    found.state.training["batch"] = 4
    save_state(found.state, found.path)
    assert found.place(8, changed=True) == TrainingPosition(1, 8)


def test_a_new_training_sets_the_earlier_ones_checkpoints_aside(saved, capsys):
    resumption.archive_previous(recipe())
    earlier = saved.with_name("checkpoints.earlier")
    assert [path.name for path in earlier.iterdir()] == ["1_2.pdsparse"]
    assert not saved.exists()
    assert f"--resume {earlier} goes on with it" in capsys.readouterr().out
    saved.mkdir()
    resumption.archive_previous(recipe())
    assert not list(earlier.iterdir())
