"""The checkpoint that the commands of a recipe load, and the keys of PaddleDetection that have an effect."""

import shutil

import paddle
import pytest
from helpers import RECIPES

from paddle_sparse_cb import InputError
from paddle_sparse_cb.cli import main
from paddle_sparse_cb.detection import config
from paddle_sparse_cb.detection.network import build_network
from paddle_sparse_cb.recipe.commands import load_trained
from paddle_sparse_cb.recipe.preflight import check_recipe
from paddle_sparse_cb.recipe.schema import read_recipe
from paddle_sparse_cb.utils.weight_files import load_inference

SPARSE = RECIPES / "picodet_s_416_trees_sparse75.yml"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Three checkpoints of the recipe's network that differ in one bias."""
    folder = tmp_path_factory.mktemp("weights")
    content = config.read_with_bases(SPARSE)
    content.pop("Sparsity")
    network = build_network(config.load(content, str(SPARSE)))
    for value, name in enumerate(("final", "best_model", "mine")):
        network.head.head_cls0.bias.set_value(paddle.full_like(network.head.head_cls0.bias, value))
        paddle.save(network.state_dict(), str(folder / f"{name}.pdparams"))
    return folder


@pytest.fixture
def trained(weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = read_recipe(SPARSE)
    shutil.copytree(weights, recipe.checkpoints)
    (recipe.checkpoints / "mine.pdparams").rename(tmp_path / "mine.pdparams")
    return recipe


def loaded_bias(recipe, export=None):
    run, _ = load_trained(recipe, export)
    return float(run.network.head.head_cls0.bias[0])


@pytest.mark.parametrize(
    ("export", "options", "expected"),
    [
        (None, [], 1),
        ("best", [], 1),
        ("last", [], 0),
        (None, ["weights=mine"], 2),
        (None, ["weights=mine.pdparams"], 2),
        ("last", ["weights=mine"], 2),
    ],
)
def test_commands_load_the_best_checkpoint_unless_export_or_weights_names_another(trained, export, options, expected):
    assert loaded_bias(read_recipe(SPARSE, options=options), export) == expected


def test_without_a_best_checkpoint_the_last_one_is_used(trained):
    (trained.checkpoints / "best_model.pdparams").unlink()
    assert loaded_bias(trained) == 0


@pytest.mark.slow
def test_the_export_flag_selects_the_exported_checkpoint(trained):
    assert main(["export", str(SPARSE), "--export", "last"]) == 0
    assert load_inference(trained.exported)["head.head_cls0.bias"][0] == 0


@pytest.mark.parametrize("command", ["eval", "export", "optimize", "verify"])
def test_missing_weights_on_the_command_line_are_a_one_line_error(trained, capsys, command):
    assert main([command, str(SPARSE), "-o", "weights=/none/model"]) == 2
    assert capsys.readouterr().err.endswith("weights: /none/model.pdparams does not exist\n")


def test_missing_weights_in_a_recipe_file_fall_back_to_the_recipes_checkpoint_with_a_note(trained, tmp_path, capsys):
    (tmp_path / SPARSE.name).write_text(
        f"_BASE_: [{SPARSE}]\npretrain_weights: null\nweights: output/picodet/model_final\n"
    )
    assert loaded_bias(read_recipe(SPARSE.name)) == 1
    assert "weights: output/picodet/model_final does not exist; using output/" in capsys.readouterr().out


def test_the_weights_key_does_not_change_the_digest():
    assert read_recipe(SPARSE, options=["weights=a"]).digest == read_recipe(SPARSE).digest


@pytest.mark.parametrize("key", ["print_flops", "use_xpu", "map_type", "filename", "pruner"])
def test_a_key_without_effect_is_named_in_a_note(key, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_recipe(read_recipe(SPARSE, options=[f"{key}=true"]))
    assert f"note: {key} has no effect here: " in capsys.readouterr().out
    check_recipe(read_recipe(SPARSE, options=[f"{key}=false"]))
    assert "no effect" not in capsys.readouterr().out


def test_every_plain_key_of_paddledetection_has_an_effect_or_a_note():
    """Whoever adds a known key decides here whether it has an effect."""
    from paddle_sparse_cb.recipe.preflight import WITHOUT_EFFECT

    yaml_anchors = {"eval_height", "eval_size", "eval_width"}  # referred to within the file: `*eval_size`
    effective = {
        "amp",
        "amp_level",
        "architecture",
        "custom_black_list",
        "custom_white_list",
        "cycle_epoch",
        "ema_black_list",
        "ema_decay",
        "ema_decay_type",
        "epoch",
        "export",
        "find_unused_parameters",
        "init_loss_scaling",
        "log_iter",
        "metric",
        "norm_type",
        "num_classes",
        "pretrain_weights",
        "resume_weights",
        "save_dir",
        "seed",
        "slim",
        "snapshot_epoch",
        "snapshot_iter",
        "use_ema",
        "use_gpu",
        "weights",
        "worker_num",
    }
    assert effective | yaml_anchors | set(WITHOUT_EFFECT) == config.PLAIN_KEYS


def test_weights_that_are_not_a_string_are_an_input_error():
    with pytest.raises(InputError, match="weights must be a string, got 5"):
        read_recipe(SPARSE, options=["weights=5"])
