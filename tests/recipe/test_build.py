import re

import numpy as np
import paddle
import pytest
from helpers import RECIPES

from paddle_sparse_cb.detection import config
from paddle_sparse_cb.detection.network import build_network
from paddle_sparse_cb.recipe.build import amp_configs, build, load_weights
from paddle_sparse_cb.recipe.permute import permute_run
from paddle_sparse_cb.recipe.schema import read_recipe
from paddle_sparse_cb.recipe.train import TrainOptions, start_weights

SPARSE, DENSE = RECIPES / "picodet_s_416_trees_sparse75.yml", RECIPES / "picodet_s_416_trees.yml"
NO_WEIGHTS = ["pretrain_weights=null"]
COCO = "sample:picodet_s_416_lcnet"


@pytest.fixture
def backbone(tmp_path):
    """Weights of the backbone only, as ImageNet weights are distributed."""
    network = build_network(config.load(config.read_with_bases(DENSE), str(DENSE)))
    path = tmp_path / "backbone.pdparams"
    paddle.save(network.backbone.state_dict(), str(path))
    return path


def load(recipe, source):
    load_weights(recipe, build(recipe), source)


def test_starting_a_sparse_recipe_from_backbone_weights_warns_with_the_number_of_untrained_layers(backbone, capsys):
    load(read_recipe(SPARSE), str(backbone))
    printed = capsys.readouterr().out
    assert "warning: 27 of the 40 layers to prune start untrained; pruning assumes a converged model" in printed
    load(read_recipe(DENSE, options=NO_WEIGHTS), str(backbone))
    assert "warning" not in capsys.readouterr().out


def test_starting_a_sparse_recipe_from_converged_weights_does_not_warn(capsys):
    load(read_recipe(SPARSE), "sample:picodet_s_416_lcnet")
    printed = capsys.readouterr().out
    assert "arrays loaded" in printed
    assert "warning" not in printed


def test_a_sparse_recipe_without_weights_warns_and_a_dense_one_does_not(capsys):
    assert start_weights(read_recipe(SPARSE, options=NO_WEIGHTS), TrainOptions()) is None
    assert "warning: starting from untrained weights" in capsys.readouterr().out
    assert start_weights(read_recipe(DENSE, options=NO_WEIGHTS), TrainOptions()) is None
    assert capsys.readouterr().out == ""


def test_channels_are_permuted_for_blocks_and_the_detector_computes_the_same(capsys):
    recipe = read_recipe(RECIPES / "picodet_s_garments_sparse75_block4x1.yml", options=[f"pretrain_weights={COCO}"])
    run = build(recipe)
    load_weights(recipe, run, COCO)
    image = paddle.rand([1, 3, 96, 96])
    run.network.eval()

    def outputs():  # of the neck too, which a distillation compares with those of a teacher
        maps = run.network.neck(run.network.backbone({"image": image}))
        return [one.numpy() for one in paddle.utils.flatten([maps, run.network.head(maps, False)])]

    before, weights = outputs(), run.network.backbone.blocks2[0].pw_conv.conv.weight.numpy()
    permute_run(run)
    found = re.search(
        r"channels of 3\d of 38 layers permuted: their blocks keep (.*)% of .* at the target ratio, (.*)% before",
        capsys.readouterr().out,
    )
    assert float(found[1]) > float(found[2]) + 5
    for expected, now in zip(before, outputs()):
        np.testing.assert_allclose(now, expected, atol=1e-3 * np.abs(expected).max())
    assert (run.network.backbone.blocks2[0].pw_conv.conv.weight.numpy() != weights).any()


def test_channels_are_permuted_on_request_only():
    run = build(read_recipe(RECIPES / "picodet_s_garments_sparse75.yml", options=NO_WEIGHTS))
    before = run.network.backbone.blocks2[0].pw_conv.conv.weight.numpy()
    permute_run(run)
    assert (run.network.backbone.blocks2[0].pw_conv.conv.weight.numpy() == before).all()


def test_amp_settings_reach_paddles_model():
    assert amp_configs(read_recipe(SPARSE)) is None
    options = ["amp=true", "amp_level=O2", "custom_black_list=[reduce_mean]", "init_loss_scaling=64"]
    model = build(read_recipe(SPARSE, options=options)).model
    assert model._adapter._amp_level == "O2"
    assert model._adapter._amp_custom_lists == {"custom_black_list": ["reduce_mean"]}
    assert model._adapter._amp_configs == {"init_loss_scaling": 64}
