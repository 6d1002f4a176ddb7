"""The `Distillation` block of a recipe: what it accepts, which teacher it builds, and a training with it."""

import dataclasses

import numpy as np
import paddle
import pytest
import yaml
from helpers import RECIPES

from paddle_sparse_cb import InputError
from paddle_sparse_cb.detection import config
from paddle_sparse_cb.detection.datasets.samples import resolve
from paddle_sparse_cb.detection.network import build_network
from paddle_sparse_cb.recipe.distillation import build_distillation, check_teacher_exists
from paddle_sparse_cb.recipe.resume import find_resume_state
from paddle_sparse_cb.recipe.schema import read_recipe
from paddle_sparse_cb.recipe.smoke import smoke
from paddle_sparse_cb.recipe.train import TrainOptions, train
from paddle_sparse_cb.utils.layers import network_digest
from paddle_sparse_cb.utils.weight_files import load_arrays

SPARSE, DENSE = RECIPES / "picodet_s_416_trees_sparse75.yml", RECIPES / "picodet_s_416_trees.yml"


def network_of(recipe):
    return build_network(config.load(recipe.content, str(recipe.path)))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weights of the demo's network, as a training leaves them."""
    path = tmp_path_factory.mktemp("weights") / "start.pdparams"
    paddle.seed(3)
    paddle.save(network_of(read_recipe(DENSE)).state_dict(), str(path))
    return path


def write(folder, block, **content):
    """Writes a recipe with a `Distillation` block."""
    path = folder / "distilled.yml"
    path.write_text(
        yaml.safe_dump(
            {"_BASE_": [str(SPARSE)], "pretrain_weights": f"recipe:{DENSE}", **content, "Distillation": block}
        )
    )
    return path


def test_a_recipe_without_the_block_does_not_distil():
    recipe = read_recipe(DENSE)
    assert recipe.distillation is None
    assert build_distillation(recipe, None) == []


def test_the_weights_of_the_block_have_defaults(tmp_path):
    block = read_recipe(write(tmp_path, {"teacher": "dense"}, pretrain_weights="w")).distillation
    assert dataclasses.astuple(block) == ("dense", 1.0, 0.5, 1.0, True, 0, False)
    assert read_recipe(write(tmp_path, {}, pretrain_weights="w")).distillation == block


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"teachers": "dense"}, "Distillation: unknown argument 'teachers'; did you mean 'teacher'?"),
        ({"localisation": 1}, "Distillation: unknown argument 'localisation'; did you mean 'localization'?"),
        ("dense", "the Distillation block must be a mapping, got 'dense'"),
        ({"teacher": 5}, "Distillation.teacher must be dense, recipe:FILE or weights, got 5"),
        ({"teacher": ""}, "Distillation.teacher must be dense, recipe:FILE or weights, got ''"),
        ({"teacher": "https://host/run.sh"}, "Distillation.teacher: a URL must end in .pdparams, optionally followed"),
        ({"features": -1}, "Distillation.features must be a finite number of at least 0, got -1"),
        ({"features": "neck"}, "Distillation.features must be a finite number of at least 0, got 'neck'"),
        ({"classification": float("nan")}, "Distillation.classification must be a finite number"),
        ({"classification": 0, "localization": 0, "features": 0}, "are all 0: nothing is compared"),
        ({"warmup_epochs": 1.5}, "Distillation.warmup_epochs must be a whole number of at least 0, got 1.5"),
        ({"labels": "no"}, "Distillation.labels must be true or false, got 'no'"),
        ({"decay": 1}, "Distillation.decay must be true or false, got 1"),
        ({"decay": True, "labels": False}, "Distillation.decay must be false without labels"),
        ({"teacher": "recipe:missing.yml"}, "missing.yml: no such recipe"),
        ({"teacher": f"recipe:{SPARSE}\0"}, "text must not contain NUL"),
    ],
)
def test_an_invalid_block_is_an_input_error_of_one_line_that_names_the_recipe(tmp_path, block, message):
    with pytest.raises(InputError) as error:
        read_recipe(write(tmp_path, block))
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert "distilled.yml" in str(error.value) or "missing.yml" in str(error.value)


def test_a_dense_teacher_needs_start_weights(tmp_path):
    with pytest.raises(InputError, match="dense is the network that the recipe starts from, and it has no pretrain_we"):
        read_recipe(write(tmp_path, {}, pretrain_weights=None))


def test_the_digest_and_the_checkpoints_cover_the_block(tmp_path):
    plain = read_recipe(write(tmp_path, {}, pretrain_weights="w"))
    found = [read_recipe(write(tmp_path, {}, pretrain_weights="w")).digest == plain.digest]
    assert found == [True]
    changed = [
        read_recipe(write(tmp_path, {key: value}, pretrain_weights="w")).digest
        for key, value in {"features": 2, "teacher": "other", "labels": False}.items()
    ]
    changed.append(read_recipe(write(tmp_path, {"teacher": f"recipe:{DENSE}"}, pretrain_weights="w")).digest)
    changed.append(read_recipe(write(tmp_path, {"teacher": f"recipe:{SPARSE}"}, pretrain_weights="w")).digest)
    assert len({plain.digest, *changed}) == 6


def test_a_teacher_that_is_not_there_is_found_before_anything_is_built(tmp_path):
    for block, message in (
        ({"teacher": "weights/missing"}, "Distillation.teacher: no weights at weights/missing"),
        (
            {"teacher": f"recipe:{DENSE}"},
            r"Distillation.teacher: .*picodet_s_416_trees/checkpoints/final.pdparams: not trained yet; run: "
            r"paddle-sparse train .*picodet_s_416_trees.yml",
        ),
    ):
        recipe = read_recipe(write(tmp_path, block), options=[f"save_dir={tmp_path}"])
        with pytest.raises(InputError, match=message):
            check_teacher_exists(recipe)
    check_teacher_exists(read_recipe(write(tmp_path, {})))  # it is trained first


def test_the_teacher_has_the_start_weights_and_the_recipe_stays_loaded(tmp_path, weights, capsys):
    recipe = read_recipe(write(tmp_path, {}, pretrain_weights=str(weights)))
    network = network_of(recipe)
    names = [parameter.name for parameter in network.parameters()]
    [distillation] = build_distillation(recipe, network)
    assert f"distilling from {weights}" in capsys.readouterr().out
    expected = network_of(recipe)
    expected.set_state_dict(paddle.load(str(weights)))
    assert network_digest(distillation.teacher) == network_digest(expected)
    assert [parameter.name for parameter in network.parameters()] == names
    weights_of_terms = {"classification": 1.0, "localization": 0.5}
    assert distillation.settings()["loss"] == {"name": "DetectionDistillation", **weights_of_terms}


def test_the_teacher_may_be_larger(tmp_path):
    (tmp_path / "large.yml").write_text(
        yaml.safe_dump({"_BASE_": [str(DENSE)], "LCNet": {"scale": 1.0}, "LCPAN": {"out_channels": 128},
                        "PicoHeadV2": {"feat_in_chan": 128, "conv_feat": {"feat_in": 128, "feat_out": 128}}})
    )  # fmt: skip
    large = read_recipe(tmp_path / "large.yml", options=[f"save_dir={tmp_path}"])
    large.checkpoints.mkdir(parents=True)
    paddle.save(network_of(large).state_dict(), str(large.checkpoint("last")))
    recipe = read_recipe(write(tmp_path, {"teacher": "recipe:large.yml"}), options=[f"save_dir={tmp_path}"])
    check_teacher_exists(recipe)
    [distillation] = build_distillation(recipe, network_of(recipe))
    assert distillation.teacher.neck.out_shape[0].channels == 128
    assert config.create("PicoDet").neck.out_shape[0].channels == 96


@pytest.mark.parametrize("kind", ["backbone", "wider", "classes", "no arrays"])
def test_weights_that_are_not_a_whole_teacher_are_an_input_error(tmp_path, weights, kind):
    arrays = dict(paddle.load(str(weights), return_numpy=True))
    if kind == "backbone":
        arrays = {name: array for name, array in arrays.items() if name.startswith("backbone.")}
    elif kind == "wider":
        arrays = {name: np.repeat(array, 2, axis=0) if "neck" in name else array for name, array in arrays.items()}
    elif kind == "classes":
        arrays = {name: np.repeat(array, 3, axis=0) if "head_cls" in name else array for name, array in arrays.items()}
    else:
        arrays = {"epoch": 3}
    path = tmp_path / "foreign.pdparams"
    paddle.save(arrays, str(path))
    recipe = read_recipe(write(tmp_path, {"teacher": str(path)}))
    message = "has no arrays" if kind == "no arrays" else "a teacher needs all of its weights: weights of .*foreign"
    with pytest.raises(InputError, match=f"Distillation.teacher: .*{message}") as error:
        build_distillation(recipe, network_of(recipe))
    assert "\n" not in str(error.value)


def test_a_smoke_run_has_an_untrained_teacher(tmp_path, capsys):
    recipe = smoke(read_recipe(write(tmp_path, {"teacher": "/none/here"}), options=[f"save_dir={tmp_path}"]))
    check_teacher_exists(recipe)
    assert len(build_distillation(recipe, network_of(recipe))) == 1
    assert "an untrained teacher: this is a smoke run" in capsys.readouterr().out


# Eight tiles of 96 pixels, four steps; without the anchors of the static assigner, which need larger images.
TINY = {
    "_BASE_": [str(DENSE)],
    "epoch": 2,
    "snapshot_epoch": 1,
    "PicoHeadV2": {"static_assigner_epoch": 0},
    "TrainDataset": {"sample_num": 8},
    "EvalDataset": {"sample_num": 1},
    "TrainReader": {
        "batch_size": 4,
        "batch_transforms": [
            {"BatchRandomResize": {"target_size": [96], "keep_ratio": False}},
            {"NormalizeImage": {}},
            {"Permute": {}},
        ],
    },
    "EvalReader": {
        "sample_transforms": [
            {"Decode": {}},
            {"Resize": {"target_size": [96, 96], "keep_ratio": False}},
            {"Permute": {}},
        ]
    },
}


def train_tiny(folder, name, options=None, **content):
    """Trains a small dense recipe in this process; returns it."""
    path = folder / f"{name}.yml"
    path.write_text(yaml.safe_dump({**TINY, **content}))
    recipe = read_recipe(path, options=[f"save_dir={folder}"])
    train(recipe, options or TrainOptions(evaluate=False))
    return recipe


@pytest.mark.slow
def test_a_distilled_recipe_trains_and_resumes_bit_for_bit(tmp_path, weights, capsys):
    block = {"pretrain_weights": str(weights), "Distillation": {"warmup_epochs": 1}}
    recipe = train_tiny(tmp_path, "distilled", **block)
    printed = capsys.readouterr().out
    assert ", classification 0." in printed
    assert ", features " in printed
    expected = load_arrays(recipe.checkpoint("last"))
    for file in recipe.checkpoints.glob("[1f]*"):  # as if it had been killed after the first epoch
        file.unlink()
    train_tiny(tmp_path, "distilled", TrainOptions(evaluate=False, resume="last"), **block)
    actual = load_arrays(recipe.checkpoint("last"))
    for name, array in expected.items():
        np.testing.assert_array_equal(actual[name], array)
    start = load_arrays(weights)
    assert any((start[name] != array).any() for name, array in expected.items())

    other = read_recipe(write(tmp_path, {"features": 2}, **TINY), options=[f"save_dir={tmp_path}"])
    with pytest.raises(InputError, match=r"Distillation: features is 1\.0 in the checkpoint and 2 in this run"):
        find_resume_state(other, str(recipe.checkpoints / "0"))


@pytest.mark.slow
def test_a_recipe_learns_from_photographs_without_annotations(tmp_path, weights, capsys):
    train_tiny(
        tmp_path,
        "unlabelled",
        epoch=1,
        pretrain_weights=str(weights),
        TrainDataset={"name": "ImageFolder", "dataset_dir": str(resolve("trees_256")), "image_dir": "images",
                      "sample_num": 8},
        Distillation={"labels": False},
    )  # fmt: skip
    printed = capsys.readouterr().out
    assert "(classification 0." in printed
    assert "vfl" not in printed


def test_recipes_distil_where_it_won_and_those_with_published_figures_do_not():
    recipes = [read_recipe(path) for path in RECIPES.glob("*_sparse*.yml")]
    distilled = {recipe.name for recipe in recipes if recipe.distillation}
    assert distilled == {
        "picodet_m_416_coco_lcnet_sparse85",
        "picodet_s_192_animals_sparse75",
        "picodet_s_416_coco_lcnet_sparse85",
        "picodet_s_416_voc_sparse75",
        "picodet_s_garments_sparse75_allocated",
        "picodet_s_garments_sparse75_block4x1",
        "picodet_s_garments_sparse85_allocated",
        "picodet_s_garments_sparse85_block4x1",
        "picodet_s_garments_sparse90_allocated",
    }
