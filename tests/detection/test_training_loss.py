import itertools

import paddle
import pytest
from helpers import RECIPES

from paddle_sparse_cb.detection import config
from paddle_sparse_cb.detection.build import build_detector
from paddle_sparse_cb.detection.training_loss import mean_training_loss
from paddle_sparse_cb.utils.layers import network_digest


@pytest.fixture(scope="module")
def detector():
    path = RECIPES / "picodet_s_416_trees.yml"
    content = config.read_with_bases(path)
    content["TrainReader"]["batch_size"] = 2
    return build_detector(content, str(path))


def test_the_loss_is_the_same_each_time_and_changes_neither_the_network_nor_its_modes(detector):
    network = detector.network
    batches = list(itertools.islice(detector.train_loader, 2))
    network.train()
    network.backbone.eval()
    modes = [layer.training for layer in network.sublayers(include_self=True)]
    before = network_digest(network)
    losses = [mean_training_loss(network, batches) for _ in range(2)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[0] > 0
    assert network_digest(network) == before  # the statistics of the batch norms, too
    assert [layer.training for layer in network.sublayers(include_self=True)] == modes


def test_it_is_the_mean_of_the_losses_that_training_would_have(detector):
    network = detector.network
    batches = list(itertools.islice(detector.train_loader, 2))
    expected = []
    for batch in batches:
        network.eval()
        network.training = network.head.training = True  # losses with running statistics
        expected.append(sum(float(loss) for loss in network(*batch)))
    network.eval()
    assert mean_training_loss(network, batches) == pytest.approx(sum(expected) / 2, rel=1e-5)
    with paddle.no_grad():
        assert len(network(*batches[0][:3])) == 2  # boxes and image ids again
