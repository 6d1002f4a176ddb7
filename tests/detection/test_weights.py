import numpy as np
import paddle
import pytest

from paddle_sparse_cb import InputError
from paddle_sparse_cb.detection.network import make_network
from paddle_sparse_cb.detection.weights import load_pretrained


def test_the_coco_weights_all_load_but_the_classes(registry):
    network = make_network(registry)
    before = float(network.backbone.conv1.conv.weight.sum())
    loaded = load_pretrained(network, "sample:picodet_s_416_lcnet")
    assert float(network.backbone.conv1.conv.weight.sum()) != before
    assert {name.split(".")[1] for name in loaded.left} == {f"head_cls{i}" for i in range(4)} | {
        f"p{i}_feat" for i in range(3, 7)}


def test_a_checkpoint_with_or_without_its_ending(network, tmp_path):
    paddle.save(network.state_dict(), str(tmp_path / "model.pdparams"))
    for source in ("model", "model.pdparams"):
        other = type(network)()
        assert load_pretrained(other, str(tmp_path / source)).left == ()
        np.testing.assert_array_equal(other.expand.weight.numpy(), network.expand.weight.numpy())


def test_a_file_that_fits_nowhere_is_an_error(network, tmp_path):
    paddle.save(paddle.nn.Linear(3, 3).state_dict(), str(tmp_path / "other.pdparams"))
    with pytest.raises(InputError, match="none of its 2 arrays fits the network"):
        load_pretrained(network, str(tmp_path / "other"))


def test_a_host_that_is_not_reached_is_one_short_line(network):
    with pytest.raises(InputError) as error:
        load_pretrained(network, "https://127.0.0.1:9/model.pdparams")
    assert str(error.value) == ("pretrain_weights: cannot fetch https://127.0.0.1:9/model.pdparams (ConnectionError); "
                                "where its host is not reached, give the path of a copy")


@pytest.mark.parametrize("source", ["/nowhere/model", "sample:none", "https://127.0.0.1:9/model.pdparams"])
def test_a_source_that_is_not_there_is_named(network, source):
    with pytest.raises(InputError, match="model|none"):
        load_pretrained(network, source)
