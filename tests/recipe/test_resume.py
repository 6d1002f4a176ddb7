import pytest
from helpers import RECIPES

from paddle_sparse_cb import InputError, TrainingPosition
from paddle_sparse_cb.checkpoints.state import TrainingState, save_state
from paddle_sparse_cb.recipe import resume
from paddle_sparse_cb.recipe.schema import read_recipe


def recipe(*options):
    return read_recipe(RECIPES / "picodet_s_416_trees_sparse75.yml", options=options)


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """A checkpoint after two of four batches of the second epoch."""
    monkeypatch.chdir(tmp_path)
    folder = recipe().checkpoints
    training = {**resume.checkpoint_metadata(recipe(), {"mAP": 0.5}), "epoch": 1, "batch": 2, "batches": 4}
    folder.mkdir(parents=True)
    save_state(TrainingState(6, {}, {}, training), folder / "1_2.pdsparse")
    return folder


def test_the_newest_checkpoint_is_found_and_printed(saved, capsys):
    found = resume.find_resume_state(recipe(), resume.LAST)
    assert found.path == saved / "1_2.pdsparse"
    assert found.position_in(4) == TrainingPosition(1, 2)
    assert found.state.training["dense"] == {"mAP": 0.5}
    assert capsys.readouterr().out == (f"resuming from {found.path}: 2 of 4 batches of epoch 1 are completed\n")


@pytest.mark.parametrize("name", ["1_2", "1_2.pdparams", "1_2.pdsparse", "1_2.pdopt", ""])
def test_a_checkpoint_can_be_given_by_name_with_or_without_suffix_or_by_its_folder(saved, name):
    assert resume.find_resume_state(recipe(), str(saved / name)).path == saved / "1_2.pdsparse"


def test_a_new_training_does_not_resume(saved):
    assert resume.find_resume_state(recipe(), None) is None


def test_without_a_checkpoint_last_starts_from_the_beginning_and_a_folder_is_an_error(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert resume.find_resume_state(recipe(), resume.LAST) is None
    assert capsys.readouterr().out.endswith("/checkpoints: starting from the beginning\n")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="--resume empty: no complete checkpoint in this folder"):
        resume.find_resume_state(recipe(), "empty")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("LearningRate.base_lr=0.5", "LearningRate: base_lr is .* in the checkpoint and 0.5 in this run"),
        ("Sparsity.ratio=0.85", "Sparsity: ratio is 0.75 in the checkpoint and 0.85 in this run"),
        ("epoch=24", "epoch is 12 in the checkpoint and 24 in this run"),
        ("use_ema=true", "use_ema is missing in the checkpoint and True in this run"),
        ("TrainReader.batch_size=4", "TrainReader: batch_size is 8 in the checkpoint and 4 in this run"),
    ],
)
def test_a_changed_recipe_is_an_input_error_that_can_be_overridden(saved, option, message):
    with pytest.raises(InputError, match=rf"1_2\.pdsparse.*{message}"):
        resume.find_resume_state(recipe(option), resume.LAST)
    assert resume.find_resume_state(recipe(option), resume.LAST, allow_config_change=True)


@pytest.mark.parametrize("option", ["worker_num=3", "log_iter=1", "Sparsity.log_freq=1", "snapshot_iter=2"])
def test_keys_that_change_no_weight_may_differ(saved, option):
    assert resume.find_resume_state(recipe(option), resume.LAST)


def test_a_position_within_an_epoch_needs_an_epoch_of_the_same_length(saved):
    found = resume.find_resume_state(recipe(), resume.LAST)
    with pytest.raises(InputError, match=r"saved after 2 of 4 batches of epoch 1, but an epoch of this run has 8"):
        found.position_in(8, allow_config_change=True)
    found.state.training["batch"] = 4
    save_state(found.state, found.path)
    found = resume.find_resume_state(recipe(), resume.LAST)
    assert found.position_in(8, allow_config_change=True) == TrainingPosition(1, 8)
