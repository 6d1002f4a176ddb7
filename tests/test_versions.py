"""The same weights give the same masks on every version of Paddle: the digests below hold on 2.6.2 and on 3.3.1."""

import hashlib

import numpy as np
import paddle
import pytest
from paddle import nn

from paddle_sparse_cb import GMPPruner
from paddle_sparse_cb.pruning.masks import keep_masks


def uniform(*shape, seed=0):
    return np.random.RandomState(seed).uniform(-1, 1, shape).astype("float32")  # numpy keeps these the same for ever


def coarse(*shape, levels, seed=0):
    """Whole numbers: many are equal, some zero, and sums of them are exact in whatever order they are taken."""
    return np.random.RandomState(seed).randint(-levels, levels + 1, shape).astype("float32")


LAYERS = {
    "distinct": [uniform(48, 40)],
    "below 1e-8, which 2.6 takes for equal": [uniform(48, 40) * np.float32(1e-9)],
    "ties": [coarse(37, 29, levels=3)],
    "all equal": [np.ones((20, 11), "float32")],
    "blocks, incomplete at the edges": [coarse(18, 13, levels=6)],
    "many": [uniform(400, 500)],
    "one ranking": [uniform(32, 24), coarse(16, 30, levels=2, seed=1), 1e-3 * uniform(8, 8, seed=2)],
}


def surviving(layers, ratio, **keywords):
    """Prunes linear layers of the given weights, and returns for each one bool, True where a weight is not zero."""
    network = nn.LayerList([nn.Linear(*weight.shape, bias_attr=False) for weight in layers])
    for layer, weight in zip(network, layers):
        layer.weight.set_value(paddle.to_tensor(weight))
    GMPPruner(
        network, ratio=ratio, prune_params_type=None, configs={"initial_ratio": ratio, "pruning_steps": 1}, **keywords
    ).step()
    return [layer.weight.numpy() != 0 for layer in network]


@pytest.mark.parametrize(
    ("name", "keywords", "digests"),
    [
        ("distinct", {"ratio": 0.75, "local_sparsity": True}, ["24dab1ac7aaa608c"]),
        ("below 1e-8, which 2.6 takes for equal", {"ratio": 0.85, "local_sparsity": True}, ["0c0a44674a94ea28"]),
        ("ties", {"ratio": 0.6, "local_sparsity": True}, ["86f7bc5264bb3ad9"]),
        ("all equal", {"ratio": 0.5, "local_sparsity": True}, ["c945c6ee13a7c127"]),
        ("many", {"ratio": 0.75, "local_sparsity": True}, ["3e0f5f86779b1ebb"]),
        (
            "one ranking",
            {"ratio": 0.75, "local_sparsity": False},
            ["0ba8c5a6cb431083", "dbdc16c1f369448b", "707d56f1f282aee2"],
        ),
    ],
)
def test_the_same_weights_give_the_same_masks_on_every_version_of_paddle(name, keywords, digests):
    masks = surviving(LAYERS[name], **keywords)
    assert [hashlib.sha256(np.packbits(mask)).hexdigest()[:16] for mask in masks] == digests


def test_blocks_that_are_incomplete_at_the_edges_give_the_same_mask_on_every_version_of_paddle():
    (mask,) = keep_masks([paddle.to_tensor(LAYERS["blocks, incomplete at the edges"][0])], 0.89, (4, 3))
    assert hashlib.sha256(np.packbits(mask.numpy())).hexdigest()[:16] == "67c6ac83c1981be2"
