import pickle
from dataclasses import replace

import paddle
import pytest
from helpers import Pointwise, classifier

from paddle_sparse_cb import GMPPruner, InputError, SparsityCallback
from paddle_sparse_cb.checkpoint import Checkpoints, load_checkpoint
from paddle_sparse_cb.state import file_digest, load_state, save_state


def test_epochs_and_final_are_saved_whole(first_digits, tmp_path):
    model = classifier(Pointwise())
    model.fit(first_digits, epochs=4, batch_size=80, verbose=0, callbacks=[Checkpoints(tmp_path, every=2)])
    assert {path.name for path in tmp_path.iterdir()} == {
        name + ending for name in ("1", "3", "final") for ending in (".pdparams", ".pdopt", ".pdsparse")}
    saved = paddle.load(str(tmp_path / "final.pdparams"))
    assert (saved["expand.weight"].numpy() == model.network.expand.weight.numpy()).all()


def test_a_save_that_fails_leaves_the_earlier_checkpoint(tmp_path, monkeypatch):
    model = classifier(Pointwise())
    checkpoints = Checkpoints(tmp_path)
    checkpoints.set_model(model)
    checkpoints.save("final")
    before = (tmp_path / "final.pdparams").read_bytes()

    def full_disk(path):
        with open(f"{path}.pdparams", "wb") as file:
            file.write(before[:100])
        raise OSError("No space left on device")

    monkeypatch.setattr(model, "save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        checkpoints.save("final")
    assert (tmp_path / "final.pdparams").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"final.pdparams", "final.pdsparse"} | {
        path.name for path in tmp_path.glob("final.pdopt")}


def pruned_fit(digits, folder, epochs, resume=None, **keywords):
    """Fits a part of four epochs, from a checkpoint on if there is one."""
    paddle.seed(5)
    schedule = {"stable_epochs": 1, "pruning_epochs": 2, "tunning_epochs": 1, "pruning_steps": 7, **keywords}
    sparsity = SparsityCallback(resume=folder / f"{resume}.pdsparse" if resume else None, **schedule)
    with paddle.utils.unique_name.guard():  # names as in a process of its own, which Paddle's `.pdopt` goes by
        model = classifier(Pointwise(), optimizer="Momentum")
        if resume:
            model.load(str(folder / resume))
        model.fit(digits, epochs=epochs, batch_size=40, verbose=0, shuffle=False,
                  callbacks=[*([] if resume else [Checkpoints(folder)]), sparsity])
    return model, sparsity.pruner


@pytest.mark.parametrize("saved", ["0", "1", "2"])  # dense, between two stairs, at the target
def test_a_resumed_training_ends_bit_for_bit_as_the_whole_one(first_digits, tmp_path, saved):
    whole, pruner = pruned_fit(first_digits, tmp_path, 4)
    rest, resumed = pruned_fit(first_digits, tmp_path, 3 - int(saved), resume=saved)
    assert resumed.cur_iteration == pruner.cur_iteration
    for name, weight in whole.network.state_dict().items():
        assert weight.numpy().tobytes() == rest.network.state_dict()[name].numpy().tobytes(), name
    for mask, other in zip(pruner.masks.values(), resumed.masks.values()):
        assert (mask.numpy() == other.numpy()).all()


def test_a_state_of_another_schedule_or_checkpoint_is_refused(first_digits, tmp_path):
    pruned_fit(first_digits, tmp_path, 4)
    with pytest.raises(InputError, match=r"1\.pdsparse: schedule: its ratio is 0\.75, that of this training is 0\.8"):
        pruned_fit(first_digits, tmp_path, 2, resume="1", ratio=0.8)
    (tmp_path / "2.pdparams").replace(tmp_path / "1.pdparams")
    with pytest.raises(InputError, match=r"1\.pdsparse: .*1\.pdparams is not the file that this state belongs to"):
        pruned_fit(first_digits, tmp_path, 2, resume="1")


def test_a_state_on_other_weights_is_refused(first_digits, tmp_path):
    _, pruner = pruned_fit(first_digits, tmp_path, 4)
    fresh = GMPPruner(Pointwise(), ratio=0.75, plan=pruner.plan, scope="local",
                      configs={key: value for key, value in pruner.settings()["schedule"].items() if key != "ratio"})
    with pytest.raises(InputError, match="not the state of these weights"):
        fresh.restore(load_state(tmp_path / "2.pdsparse"))


def test_a_save_that_fails_leaves_an_earlier_state_with_its_weights(first_digits, tmp_path, monkeypatch):
    model, _ = pruned_fit(first_digits, tmp_path, 4)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full_disk(path):
        raise OSError("No space left on device")

    monkeypatch.setattr(model, "save", full_disk)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.set_model(model)
    with pytest.raises(OSError, match="No space left"):
        checkpoints.save("1")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_state_of_an_earlier_training_does_not_outlive_its_weights(first_digits, tmp_path):
    pruned_fit(first_digits, tmp_path, 4)
    assert load_state(tmp_path / "1.pdsparse").masks
    classifier(Pointwise()).fit(first_digits, epochs=2, batch_size=80, verbose=0, callbacks=[Checkpoints(tmp_path)])
    assert not load_state(tmp_path / "1.pdsparse").masks


@pytest.mark.parametrize("content", [
    {"LR_Scheduler": {}}, {"LR_Scheduler": 5},
    {"LR_Scheduler": {"last_epoch": 1, "last_lr": 0.1}, "master_weights": 5}])
def test_an_optimizer_of_a_stranger_that_makes_no_sense_is_named(content, tmp_path):
    def made():
        network = Pointwise()
        model = paddle.Model(network)
        rate = paddle.optimizer.lr.StepDecay(0.1, 3)
        model.prepare(paddle.optimizer.Momentum(rate, parameters=network.parameters()))
        return model

    model = made()
    checkpoints = Checkpoints(tmp_path)
    checkpoints.set_model(model)
    checkpoints.save("0")
    (tmp_path / "0.pdopt").write_bytes(pickle.dumps(content))
    path = tmp_path / "0.pdsparse"
    state = load_state(path)
    save_state(replace(state, files={name: file_digest(tmp_path / name) for name in state.files}), path)
    with pytest.raises(InputError, match=r"0.pdopt: this optimizer cannot go on from it: "):
        load_checkpoint(model, path)
