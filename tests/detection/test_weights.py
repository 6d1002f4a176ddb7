import functools
import http.server
import threading

import numpy as np
import paddle
import pytest
from helpers import RECIPES, Pointwise, classifier, slim_checkpoint

from paddle_sparse_cb import InputError, SparsityCallback, apply_paddleslim_masks, make_plan, measure_sparsity
from paddle_sparse_cb.detection import config
from paddle_sparse_cb.detection.network import build_network
from paddle_sparse_cb.detection.weights import LoadedWeights, load_matching, read_weights

SAMPLE = "sample:picodet_s_416_lcnet"
HEADS = tuple(f"head.head_cls{level}" for level in range(4))
SCALES = {f"head.p{level}_feat.scale_reg" for level in range(3, 7)}


def load(network, source):
    return load_matching(network, read_weights(source), source)


def test_the_coco_weights_load_except_for_heads_with_other_classes(registry):
    network = build_network(registry)
    before = float(network.backbone.conv1.conv.weight.sum())
    loaded = load(network, SAMPLE)
    assert float(network.backbone.conv1.conv.weight.sum()) != before
    assert set(loaded.missing_keys) == {f"{head}.{kind}" for head in HEADS for kind in ("weight", "bias")} | SCALES
    assert loaded.loaded == len(network.state_dict()) - len(loaded.missing_keys)
    assert loaded.untrained_heads == HEADS


def test_the_message_names_the_heads_that_do_not_fit_and_why(registry):
    assert str(load(build_network(registry), SAMPLE)) == (
        f"weights of {SAMPLE}: 435 arrays loaded; the prediction heads do not fit (80 classes in the file, 1 here) and "
        "start untrained: head.head_cls0, head.head_cls1, head.head_cls2, ...; 4 arrays keep their initial values: "
        "head.p3_feat.scale_reg, head.p4_feat.scale_reg, head.p5_feat.scale_reg, ..."
    )


def test_heads_with_as_many_classes_are_trained_though_the_sample_lacks_the_scales(registry):
    registry["num_classes"] = 80
    loaded = load(build_network(registry), SAMPLE)
    assert set(loaded.missing_keys) == SCALES
    assert loaded.untrained_heads == ()
    assert "head.head" not in str(loaded)
    assert "4 arrays keep their initial values: head.p3_feat.scale_reg" in str(loaded)


def test_a_backbone_alone_leaves_every_head_untrained(registry):
    network = build_network(registry)
    arrays = {
        name[len("backbone.") :]: value for name, value in read_weights(SAMPLE).items() if name.startswith("backbone.")
    }
    loaded = load_matching(network, arrays, "backbone.pdparams")
    assert loaded.loaded == len(arrays)
    assert {f"{name}.weight" for name in loaded.untrained_heads} == set(network.prediction_layers())
    assert "; the prediction heads are not in the file and start untrained: head.head_cls0, " in str(loaded)


def test_a_head_with_other_channels_is_described_by_its_shape(registry):
    arrays = read_weights(SAMPLE)
    arrays["head.head_cls0.weight"] = arrays["head.head_cls0.weight"][:, :64]
    registry["num_classes"] = 80
    loaded = load_matching(build_network(registry), arrays, "file")
    assert loaded.untrained_heads == ("head.head_cls0",)
    assert "(head.head_cls0.weight has shape [80, 64, 1, 1] in the file, [80, 96, 1, 1] here)" in str(loaded)


@pytest.mark.parametrize("base", ["picodet_s_320_coco.yml", "picodet_s_416_voc.yml"])
def test_the_number_of_classes_is_right_for_heads_that_also_predict_boxes(base, tmp_path):
    """ESNet's PicoHead predicts classes and boxes with one convolution."""
    content = config.read_with_bases(RECIPES / base)
    arrays = {
        name: tensor.numpy()
        for name, tensor in build_network(config.load({**content, "num_classes": 20}, base)).state_dict().items()
    }
    loaded = load_matching(build_network(config.load({**content, "num_classes": 3}, base)), arrays, "file")
    assert set(HEADS) <= set(loaded.untrained_heads)
    assert "(20 classes in the file, 3 here)" in str(loaded)


def test_a_network_without_prediction_layers_has_no_untrained_heads(network):
    arrays = {"head.weight": network.head.weight.numpy()}
    loaded = load_matching(network, arrays, "file")
    assert loaded.untrained_heads == ()
    assert "head.weight" not in loaded.missing_keys
    assert "stem.0.weight" in loaded.missing_keys


def test_complete_weights_are_one_short_line():
    assert str(LoadedWeights("model.pdparams", 7, ())) == "weights of model.pdparams: 7 arrays loaded"


def test_the_extension_of_a_checkpoint_may_be_left_out(network, tmp_path):
    paddle.save(network.state_dict(), str(tmp_path / "model.pdparams"))
    for source in ("model", "model.pdparams"):
        other = type(network)()
        assert load(other, str(tmp_path / source)).missing_keys == ()
        np.testing.assert_array_equal(other.expand.weight.numpy(), network.expand.weight.numpy())


def test_a_file_that_fits_nowhere_is_an_error(network, tmp_path):
    paddle.save(paddle.nn.Linear(3, 3).state_dict(), str(tmp_path / "other.pdparams"))
    with pytest.raises(InputError, match="none of its 2 arrays fits the network"):
        load(network, str(tmp_path / "other"))


def test_a_file_without_arrays_is_an_error(tmp_path):
    paddle.save({"epoch": 3}, str(tmp_path / "other.pdparams"))
    with pytest.raises(InputError, match=r"other.pdparams: has no arrays"):
        read_weights(str(tmp_path / "other"))


def test_a_file_of_more_arrays_than_any_network_is_refused(tmp_path):
    """Each would be compared with each array of the network: a megabyte would take minutes."""
    paddle.save({f"{number}": np.zeros(1, np.float32) for number in range(10_001)}, str(tmp_path / "many.pdparams"))
    with pytest.raises(InputError, match=r"many.pdparams: must have at most 10,000 arrays, got 10,001"):
        read_weights(str(tmp_path / "many"))


def test_an_unreachable_host_is_an_error_of_one_short_line():
    with pytest.raises(InputError) as error:
        read_weights("https://127.0.0.1:9/model.pdparams")
    assert str(error.value) == (
        "cannot download https://127.0.0.1:9/model.pdparams: [Errno 111] Connection refused; "
        "if the host cannot be reached, give the path of a local copy"
    )


def test_what_is_no_weight_file_does_not_enter_the_cache_and_a_file_damaged_there_is_named(
    network, tmp_path, monkeypatch
):
    cache = tmp_path / "cache"
    monkeypatch.setenv("PADDLE_SPARSE_CACHE", str(cache))
    served = tmp_path / "served" / "model.pdparams"
    served.parent.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(served.parent))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/model.pdparams"
    served.write_text('{"error": "the link has expired"}')
    with pytest.raises(InputError, match=f"^cannot use what {url} sent: not a weight file: "):
        read_weights(url)
    assert not list(cache.rglob("*.pdparams"))
    paddle.save(network.state_dict(), str(served))
    assert read_weights(url).keys() == network.state_dict().keys()
    server.shutdown()
    server.server_close()
    (cached,) = cache.rglob("*.pdparams")
    cached.write_bytes(cached.read_bytes()[:-9])
    with pytest.raises(InputError, match=f"{cached}: not a weight file: .*; delete {cached.parent} to download it aga"):
        read_weights(url)


@pytest.mark.parametrize("source", ["/nowhere/model", "sample:none"])
def test_a_source_that_does_not_exist_is_named(source):
    with pytest.raises(InputError, match="no weights at /nowhere/model.pdparams|sample:none: no such sample"):
        read_weights(source)


def sparse_file(folder, kind):
    """Writes a sparse `.pdparams` without pruning state, with PaddleSlim's masks or with zeros; returns the zeros."""
    _, saved = slim_checkpoint(Pointwise())
    arrays, _ = apply_paddleslim_masks(saved)
    paddle.save(saved if kind == "masks" else arrays, str(folder / "model.pdparams"))
    return {name: array == 0 for name, array in arrays.items()}


@pytest.mark.parametrize("kind", ["masks", "zeros"])
@pytest.mark.parametrize("scope", ["uniform", "global"])
def test_training_from_a_sparse_file_made_elsewhere_keeps_its_zeros(tmp_path, first_digits, kind, scope):
    zeros = sparse_file(tmp_path, kind)
    network = Pointwise()
    arrays, _ = apply_paddleslim_masks(read_weights(str(tmp_path / "model")))
    load_matching(network, arrays, "model")
    for name, parameter in network.named_parameters():
        assert not parameter.numpy()[zeros[name]].any()
    plan = make_plan(network, prune_squeeze_excite=True)
    names = [layer.name for layer in plan.pruned]
    initial = measure_sparsity(network, plan).ratio
    assert initial > 0.55
    ratios = []

    class RecordRatio(paddle.callbacks.Callback):
        def on_train_batch_end(self, step, logs=None):
            state = self.model.network.state_dict()
            assert not any(state[name].numpy()[zeros[name]].any() for name in names)
            ratios.append(measure_sparsity(self.model.network, plan).ratio)

    sparsity = SparsityCallback(
        ratio=0.8, stable_epochs=1, pruning_epochs=1, tunning_epochs=1, pruning_steps=5, scope=scope, plan=plan
    )
    classifier(network).fit(first_digits, epochs=3, batch_size=16, verbose=0, callbacks=[sparsity, RecordRatio()])
    assert ratios[:10] == [initial] * 10
    assert ratios == sorted(ratios)
    assert ratios[-1] == pytest.approx(0.8, abs=1e-3)
    assert ratios[-1] >= 0.8
