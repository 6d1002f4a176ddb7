import errno
import os
import pickle
import resource
import signal
from dataclasses import replace

import numpy as np
import paddle
import pytest
from helpers import Pointwise, classifier, forked

from paddle_sparse_cb import (
    Checkpoints,
    DivergenceError,
    EMACallback,
    GMPPruner,
    InputError,
    ResumeState,
    SparsityCallback,
    TrainingPosition,
    find_checkpoint,
    last_checkpoint,
)
from paddle_sparse_cb.checkpoints.state import file_digest, load_state, save_state
from paddle_sparse_cb.checkpoints.verify import verify_checkpoints
from paddle_sparse_cb.utils.weight_files import load_arrays


def load_checkpoint(model, path, batches=None, **keywords):
    return ResumeState.open(path).load_into(model, batches, **keywords)


def test_epoch_and_final_checkpoints_have_all_their_files(first_digits, tmp_path):
    model = classifier(Pointwise())
    model.fit(first_digits, epochs=4, batch_size=80, verbose=0, callbacks=[Checkpoints(tmp_path, every=2)])
    assert {path.name for path in tmp_path.glob("[!.]*")} == {
        name + suffix for name in ("1", "3", "final") for suffix in (".pdparams", ".pdopt", ".pdsparse")
    }
    saved = paddle.load(str(tmp_path / "final.pdparams"))
    assert (saved["expand.weight"].numpy() == model.network.expand.weight.numpy()).all()


class RestoreWeights(paddle.callbacks.Callback):
    """Puts the first weights back after each epoch, as some averaging callbacks do."""

    def on_train_begin(self, logs=None):
        self.first = self.model.network.expand.weight.clone()

    def on_epoch_end(self, epoch, logs=None):
        self.model.network.expand.weight.set_value(self.first)


@pytest.mark.filterwarnings("default::UserWarning")
@pytest.mark.parametrize("ema", [(), (EMACallback(),)])
def test_pruned_weights_that_another_callback_restores_are_zero_in_every_checkpoint(first_digits, tmp_path, ema):
    model = classifier(Pointwise())
    sparsity = SparsityCallback(ratio=0.75, pruning_epochs=2, tunning_epochs=1)
    with pytest.warns(UserWarning, match=r"pruned weights were not zero before saving, \d+ of them in expand.weight"):
        model.fit(
            first_digits,
            epochs=3,
            batch_size=16,
            verbose=0,
            callbacks=[RestoreWeights(), sparsity, Checkpoints(tmp_path), *ema],
        )
    count, problems = verify_checkpoints(tmp_path)
    assert (count, problems) == (4, [])


def test_the_averages_of_pruned_weights_are_zero_in_every_checkpoint(first_digits, tmp_path):
    sparsity = SparsityCallback(ratio=0.75, pruning_epochs=2, tunning_epochs=1, pruning_steps=4)
    callbacks = [sparsity, EMACallback(), Checkpoints(tmp_path, every_batches=3)]
    classifier(Pointwise()).fit(first_digits, epochs=3, batch_size=16, verbose=0, callbacks=callbacks)
    for name in ("0", "1", "2"):
        state, arrays = load_state(tmp_path / f"{name}.pdsparse"), load_arrays(tmp_path / f"{name}.pdema")
        assert state.masks
        for weight, mask in state.masks.items():
            assert not arrays[f"average.{weight}"][~mask].any()
            assert arrays[f"average.{weight}"][mask].any()


def test_numpy_numbers_of_a_state_are_saved_and_other_values_are_an_error_of_one_line(first_digits, tmp_path):
    model = classifier(Pointwise())
    model.fit(first_digits, batch_size=80, verbose=0)
    for value, saved in ((np.float32(0.5), 0.5), (np.int64(3), 3), (np.bool_(True), True)):
        checkpoints = Checkpoints(tmp_path, training={"value": value})
        checkpoints.set_model(model)
        checkpoints.save("a")
        assert load_state(tmp_path / "a.pdsparse").training["value"] == saved
    for other in (float("nan"), np.float32("inf"), np.zeros(2), {1, 2}):
        checkpoints = Checkpoints(tmp_path, training={"value": other})
        checkpoints.set_model(model)
        with pytest.raises(InputError, match=r"b.pdsparse: cannot be saved: .* plain finite values: ") as error:
            checkpoints.save("b")
        assert "\n" not in str(error.value)
    assert not (tmp_path / "b.pdsparse").exists()


@pytest.mark.parametrize(
    "make", [Checkpoints, lambda path: SparsityCallback(save_dir=path), lambda path: SparsityCallback(log_dir=path)]
)
def test_a_folder_with_nul_in_its_name_is_an_error_before_the_training(make):
    with pytest.raises(InputError, match=r"(folder|save_dir|log_dir) must be a path without NUL, got 'a.x00b'"):
        make("a\0b")


def test_a_failed_save_keeps_the_previous_checkpoint(first_digits, tmp_path, monkeypatch):
    model = classifier(Pointwise())
    model.fit(first_digits, batch_size=80, verbose=0)  # before its first step an optimizer has no state to save
    checkpoints = Checkpoints(tmp_path)
    checkpoints.set_model(model)
    checkpoints.save("final")
    before = (tmp_path / "final.pdparams").read_bytes()

    def full_disk(path):
        with open(f"{path}.pdparams", "wb") as file:
            file.write(before[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(model, "save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        checkpoints.save("final")
    assert (tmp_path / "final.pdparams").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"final.pdparams", "final.pdopt", "final.pdsparse"}


def pruned_fit(digits, folder, epochs, resume=None, **keywords):
    """Trains with a schedule of four epochs, resuming from the named checkpoint if there is one."""
    paddle.seed(5)
    schedule = {"stable_epochs": 1, "pruning_epochs": 2, "tunning_epochs": 1, "pruning_steps": 7, **keywords}
    sparsity = SparsityCallback(resume=folder / f"{resume}.pdsparse" if resume else None, **schedule)
    with paddle.utils.unique_name.guard():  # as in a new process: `.pdopt` refers to numbered names
        model = classifier(Pointwise(), optimizer="Momentum")
        model.fit(
            digits,
            epochs=epochs,
            batch_size=40,
            verbose=0,
            shuffle=False,
            callbacks=[*([] if resume else [Checkpoints(folder)]), sparsity],
        )
    return model, sparsity.pruner


@pytest.mark.parametrize("saved", ["0", "1", "2"])  # dense, between two pruning steps, at the target ratio
def test_resuming_after_any_epoch_reproduces_the_uninterrupted_training_bit_for_bit(first_digits, tmp_path, saved):
    uninterrupted, pruner = pruned_fit(first_digits, tmp_path, 4)
    resumed, resumed_pruner = pruned_fit(first_digits, tmp_path, 3 - int(saved), resume=saved)
    assert resumed_pruner.cur_iteration == pruner.cur_iteration
    for name, weight in uninterrupted.network.state_dict().items():
        assert weight.numpy().tobytes() == resumed.network.state_dict()[name].numpy().tobytes(), name
    assert resumed_pruner.masks.keys() == pruner.masks.keys()
    for name, mask in pruner.masks.items():
        assert (mask.numpy() == resumed_pruner.masks[name].numpy()).all()


def test_resuming_with_another_schedule_or_mismatched_files_is_an_input_error(first_digits, tmp_path):
    pruned_fit(first_digits, tmp_path, 4)
    with pytest.raises(
        InputError,
        match=r"1\.pdsparse: schedule: ratio is 0\.75 in the checkpoint and 0\.8 in "
        "this run",
    ):
        pruned_fit(first_digits, tmp_path, 2, resume="1", ratio=0.8)
    (tmp_path / "2.pdparams").replace(tmp_path / "1.pdparams")
    with pytest.raises(InputError, match=r"1\.pdsparse: .*1\.pdparams does not belong to this checkpoint"):
        pruned_fit(first_digits, tmp_path, 2, resume="1")


def test_masks_are_not_restored_onto_other_weights(first_digits, tmp_path):
    _, pruner = pruned_fit(first_digits, tmp_path, 4)
    fresh = GMPPruner(
        Pointwise(),
        ratio=0.75,
        plan=pruner.plan,
        scope="uniform",
        configs={key: value for key, value in pruner.settings()["schedule"].items() if key != "ratio"},
    )
    with pytest.raises(InputError, match="the weights are not those of this checkpoint"):
        fresh.restore(load_state(tmp_path / "2.pdsparse"))


def test_a_failed_save_keeps_the_previous_training_state_with_its_weights(first_digits, tmp_path, monkeypatch):
    model, _ = pruned_fit(first_digits, tmp_path, 4)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full_disk(path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(model, "save", full_disk)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.set_model(model)
    with pytest.raises(OSError, match="No space left"):
        checkpoints.save("1")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_new_training_replaces_the_masks_of_an_earlier_one(first_digits, tmp_path):
    pruned_fit(first_digits, tmp_path, 4)
    assert load_state(tmp_path / "1.pdsparse").masks
    classifier(Pointwise()).fit(first_digits, epochs=2, batch_size=80, verbose=0, callbacks=[Checkpoints(tmp_path)])
    assert not load_state(tmp_path / "1.pdsparse").masks


@pytest.fixture(scope="module")
def saved(first_digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    pruned_fit(first_digits, folder, 4)
    return folder


@pytest.fixture
def copied(saved, tmp_path):
    for file in saved.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def test_the_newest_complete_checkpoint_is_used_and_damaged_ones_are_reported(copied):
    (copied / "12_7.pdparams").write_bytes(b"half")  # killed before its training state was written
    with (copied / "3.pdopt").open("r+b") as file:  # killed while a resumed training overwrote it
        file.truncate(1000)
    messages = []
    assert last_checkpoint(copied, messages.append) == copied / "2.pdsparse"
    assert [message.partition(": ")[0] for message in messages] == ["checkpoint skipped"] * 2
    assert "12_7.pdsparse: no such file" in messages[0]
    assert "3.pdopt does not belong to this checkpoint" in messages[1]
    assert find_checkpoint(copied, messages.append).position == TrainingPosition(2, 4)


def test_without_a_complete_checkpoint_none_is_returned(copied):
    for file in copied.glob("[0-9].pdsparse"):
        file.write_bytes(file.read_bytes()[:-1])
    with pytest.warns(UserWarning, match="checkpoint skipped: .*damaged"):
        assert last_checkpoint(copied) is None
    assert last_checkpoint(copied / "missing") is None


def test_only_the_newest_checkpoint_within_an_epoch_is_kept(first_digits, tmp_path):
    class SavedFiles(paddle.callbacks.Callback):
        after_each_batch = []

        def on_train_batch_end(self, step, logs=None):
            self.after_each_batch.append(sorted(path.name for path in tmp_path.glob("*.pdsparse")))

    classifier(Pointwise()).fit(
        first_digits,
        epochs=2,
        batch_size=40,
        verbose=0,
        callbacks=[Checkpoints(tmp_path, every_batches=2), SavedFiles()],
    )
    assert SavedFiles.after_each_batch == [
        [],
        [],
        ["0_2.pdsparse"],
        ["0_2.pdsparse"],
        ["0.pdsparse"],
        ["0.pdsparse"],
        ["0.pdsparse", "1_2.pdsparse"],
        ["0.pdsparse", "1_2.pdsparse"],
    ]
    assert not list(tmp_path.glob("1_2.*"))


@pytest.mark.parametrize(
    ("make_model", "message"),
    [
        (
            lambda: classifier(Pointwise(classes=7)),
            r"1\.pdparams: a checkpoint of another network: head.weight is of "
            r"shape \[32, 10\] in the checkpoint and of shape \[32, 7\] in this",
        ),
        (lambda: classifier(paddle.nn.Linear(4, 4)), r"weight is missing in the checkpoint and of shape \[4, 4\]"),
        (
            lambda: classifier(Pointwise(), learning_rate=paddle.optimizer.lr.NoamDecay(10, 10)),
            r"1\.pdopt: a checkpoint of another optimizer: it has no learning rate schedule, this optimizer has one",
        ),
    ],
)
def test_the_error_for_another_network_or_optimizer_describes_both_sides(saved, make_model, message):
    with paddle.utils.unique_name.guard(), pytest.raises(InputError, match=message):
        load_checkpoint(make_model(), saved / "1.pdsparse", 4)


def test_momentum_under_other_parameter_names_is_an_error_instead_of_being_lost(saved):
    with paddle.utils.unique_name.guard():
        Pointwise()
        with pytest.raises(
            InputError,
            match=r"1\.pdopt: a checkpoint of another optimizer: its [\w.]+ belongs to no "
            "parameter",
        ):
            load_checkpoint(classifier(Pointwise()), saved / "1.pdsparse", 4)


def test_another_epoch_length_or_number_of_ranks_is_an_error_that_can_be_overridden(saved, copied, first_digits):
    with paddle.utils.unique_name.guard():
        model = classifier(Pointwise())
    with pytest.raises(InputError, match=r"1\.pdsparse: batches is 4 in the checkpoint and 8 in this run"):
        load_checkpoint(model, saved / "1.pdsparse", 8)
    assert load_checkpoint(model, saved / "1.pdsparse", 8, allow_config_change=True) == 16
    state = load_state(copied / "1.pdsparse")
    state.training["ranks"] = 2
    save_state(state, copied / "1.pdsparse")
    with pytest.raises(InputError, match="ranks is 2 in the checkpoint and 1 in this run"):
        load_checkpoint(model, copied / "1.pdsparse", 4)
    assert load_checkpoint(model, copied / "1.pdsparse", 4, allow_config_change=True) == 8


def test_a_training_can_resume_with_a_higher_target_ratio(saved, copied, first_digits):
    _, pruner = pruned_fit(first_digits, copied, 1, resume="2", ratio=0.9, allow_config_change=True)
    assert pruner.ratio == 0.9
    assert pruner.sparsity() >= 0.9
    before = load_state(saved / "2.pdsparse").masks
    for layer, mask in zip(pruner.plan.pruned, pruner.masks.values()):
        assert not (mask.numpy() & ~before[layer.name]).any()  # pruned weights stay pruned


def test_resuming_with_another_plan_is_an_error_that_cannot_be_overridden(copied, first_digits):
    with pytest.raises(
        InputError,
        match=r"2\.pdsparse: plan: project\.weight is \[32, 64, 1, 1\] in the checkpoint "
        "and missing in this run",
    ):
        pruned_fit(first_digits, copied, 1, resume="2", skip=("project.*",), allow_config_change=True)


def test_a_network_with_nan_weights_is_not_saved(copied):
    model = classifier(Pointwise())
    model.network.expand.weight.set_value(paddle.full([64, 16, 1, 1], np.nan))
    checkpoints = Checkpoints(copied)
    checkpoints.set_model(model)
    before = {path.name: path.read_bytes() for path in copied.iterdir()}
    with pytest.raises(DivergenceError, match=r"3 is not saved: the training diverged: expand\.weight is not finite"):
        checkpoints.save("3")
    assert {path.name: path.read_bytes() for path in copied.iterdir()} == before


def save(folder, name):
    checkpoints = Checkpoints(folder)
    checkpoints.set_model(classifier(Pointwise()))
    checkpoints.save(name)


def save_with_little_space(folder):
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
    try:
        save(folder, "3")
    except OSError:
        os._exit(3)


def test_a_save_that_fails_for_lack_of_space_keeps_the_previous_checkpoint(copied):
    before = {path.name: path.read_bytes() for path in copied.iterdir()}
    process = forked(save_with_little_space, copied)
    process.join(60)
    assert process.exitcode == 3
    assert {path.name: path.read_bytes() for path in copied.iterdir()} == before
    assert last_checkpoint(copied) == copied / "3.pdsparse"


def save_and_be_killed(folder):
    os.replace = lambda *paths: os.kill(os.getpid(), signal.SIGKILL)
    save(folder, "4")


def test_partial_writes_of_a_killed_process_are_removed_and_files_of_others_are_not(copied, first_digits):
    process = forked(save_and_be_killed, copied)
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert list(copied.glob(".saving.*"))
    for leftover in (".5.pdparams.Xa81Bc", ".5.pdsparse.Xa81Bc"):
        (copied / leftover).write_bytes(b"rsync was killed")
    pruned_fit(first_digits, copied, 4)
    assert {path.name for path in copied.glob(".*")} == {".5.pdparams.Xa81Bc", ".5.pdsparse.Xa81Bc", ".lock"}


@pytest.mark.parametrize(
    "content",
    [
        {"LR_Scheduler": {}},
        {"LR_Scheduler": 5},
        {"LR_Scheduler": {"last_epoch": 1, "last_lr": 0.1}, "master_weights": 5},
    ],
)
def test_a_malformed_optimizer_state_is_an_input_error_that_names_the_file(content, tmp_path):
    network = Pointwise()
    model = paddle.Model(network)
    rate = paddle.optimizer.lr.StepDecay(0.1, 3)
    model.prepare(paddle.optimizer.Momentum(rate, parameters=network.parameters()))
    checkpoints = Checkpoints(tmp_path)
    checkpoints.set_model(model)
    checkpoints.save("0")
    (tmp_path / "0.pdopt").write_bytes(pickle.dumps(content))
    path = tmp_path / "0.pdsparse"
    state = load_state(path)
    save_state(replace(state, files={name: file_digest(tmp_path / name) for name in state.files}), path)
    with pytest.raises(InputError, match=r"0.pdopt: this optimizer cannot load it: "):
        load_checkpoint(model, path)
