import paddle
import pytest
from helpers import Pointwise, classifier

from paddle_sparse_cb.checkpoint import Checkpoints


def test_epochs_and_final_are_saved_whole(first_digits, tmp_path):
    model = classifier(Pointwise())
    model.fit(first_digits, epochs=4, batch_size=80, verbose=0, callbacks=[Checkpoints(tmp_path, every=2)])
    names = {"1", "3", "final"}
    assert {path.name for path in tmp_path.iterdir()} == {f"{n}{e}" for n in names for e in (".pdparams", ".pdopt")}
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
    assert {path.name for path in tmp_path.iterdir()} == {"final.pdparams"} | {
        path.name for path in tmp_path.glob("final.pdopt")}
