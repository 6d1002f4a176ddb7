import numpy as np
import paddle
import pytest
from helpers import Pointwise, classifier, slim_checkpoint

from paddle_sparse_cb import InputError, SparsityCallback, apply_paddleslim_masks, make_plan, measure_sparsity
from paddle_sparse_cb.detection.network import build_network
from paddle_sparse_cb.detection.weights import load_pretrained


def test_the_coco_weights_all_load_but_the_classes(registry):
    network = build_network(registry)
    before = float(network.backbone.conv1.conv.weight.sum())
    loaded = load_pretrained(network, "sample:picodet_s_416_lcnet")
    assert float(network.backbone.conv1.conv.weight.sum()) != before
    assert {name.split(".")[1] for name in loaded.missing_keys} == {f"head_cls{i}" for i in range(4)} | {
        f"p{i}_feat" for i in range(3, 7)}


def test_a_checkpoint_with_or_without_its_ending(network, tmp_path):
    paddle.save(network.state_dict(), str(tmp_path / "model.pdparams"))
    for source in ("model", "model.pdparams"):
        other = type(network)()
        assert load_pretrained(other, str(tmp_path / source)).missing_keys == ()
        np.testing.assert_array_equal(other.expand.weight.numpy(), network.expand.weight.numpy())


def test_a_file_that_fits_nowhere_is_an_error(network, tmp_path):
    paddle.save(paddle.nn.Linear(3, 3).state_dict(), str(tmp_path / "other.pdparams"))
    with pytest.raises(InputError, match="none of its 2 arrays fits the network"):
        load_pretrained(network, str(tmp_path / "other"))


def test_a_host_that_is_not_reached_is_one_short_line(network):
    with pytest.raises(InputError) as error:
        load_pretrained(network, "https://127.0.0.1:9/model.pdparams")
    assert str(error.value) == ("cannot download https://127.0.0.1:9/model.pdparams: [Errno 111] Connection refused; "
                                "if the host cannot be reached, give the path of a local copy")


@pytest.mark.parametrize("source", ["/nowhere/model", "sample:none", "https://127.0.0.1:9/model.pdparams"])
def test_a_source_that_is_not_there_is_named(network, source):
    with pytest.raises(InputError, match="model|none"):
        load_pretrained(network, source)


def sparse_file(folder, kind):
    """A sparse `.pdparams` without state, and where it is zero: PaddleSlim's masks and all, or zeros alone."""
    _, saved = slim_checkpoint(Pointwise())
    arrays, _ = apply_paddleslim_masks(saved)
    paddle.save(saved if kind == "masks" else arrays, str(folder / "model.pdparams"))
    return {name: array == 0 for name, array in arrays.items()}


def test_the_line_says_how_many_layers_had_masks(tmp_path):
    sparse_file(tmp_path, "masks")
    loaded = load_pretrained(Pointwise(), str(tmp_path / "model"))
    assert str(loaded) == f"weights of {tmp_path / 'model'}: {loaded.loaded} arrays loaded, masks of 5 layers applied"
    sparse_file(tmp_path, "zeros")
    assert "masks" not in str(load_pretrained(Pointwise(), str(tmp_path / "model")))


@pytest.mark.parametrize("kind", ["masks", "zeros"])
@pytest.mark.parametrize("scope", ["local", "global"])
def test_training_on_a_sparse_file_of_others_loses_none_of_its_zeros(tmp_path, first_digits, kind, scope):
    zeros = sparse_file(tmp_path, kind)
    network = Pointwise()
    load_pretrained(network, str(tmp_path / "model"))
    for name, parameter in network.named_parameters():
        assert not parameter.numpy()[zeros[name]].any()
    plan = make_plan(network, prune_squeeze_excite=True)
    names = [layer.name for layer in plan.pruned]
    begun = measure_sparsity(network, plan).ratio
    assert begun > 0.55
    seen = []

    class Watch(paddle.callbacks.Callback):
        def on_train_batch_end(self, step, logs=None):
            state = self.model.network.state_dict()
            assert not any(state[name].numpy()[zeros[name]].any() for name in names)
            seen.append(measure_sparsity(self.model.network, plan).ratio)

    sparsity = SparsityCallback(ratio=0.8, stable_epochs=1, pruning_epochs=1, tunning_epochs=1, pruning_steps=5,
                                scope=scope, plan=plan)
    classifier(network).fit(first_digits, epochs=3, batch_size=16, verbose=0, callbacks=[sparsity, Watch()])
    assert seen[:10] == [begun] * 10
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(0.8, abs=1e-3)
    assert seen[-1] >= 0.8
