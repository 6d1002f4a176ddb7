import json
from pathlib import Path

import pytest
from helpers import RECIPES

from paddle_sparse_cb.recipe.schema import read_recipe
from paddle_sparse_cb.recipe.smoke import smoke, write_annotations

SPARSE = RECIPES / "picodet_s_416_trees_sparse75.yml"


@pytest.fixture
def small(tmp_path):
    return smoke(read_recipe(SPARSE, options=[f"save_dir={tmp_path}", "num_classes=80", "pretrain_weights=/none/here"]))


def test_the_network_and_the_exported_size_are_the_recipes(small):
    whole = read_recipe(SPARSE)
    assert small.input_size == whole.input_size
    assert small.target_ratio == whole.target_ratio
    for block in ("LCNet", "LCPAN", "PicoHeadV2", "OptimizerBuilder"):
        assert small.content[block] == whole.content[block]


def test_what_it_makes_lies_apart_and_is_told_by_its_digest(small):
    assert small.output.name == "picodet_s_416_trees_sparse75_smoke"
    assert small.digest != read_recipe(SPARSE, options=["num_classes=80"]).digest


def test_the_photographs_have_as_many_categories_as_the_recipe(small):
    assert not small.output.exists()  # a plan needs no data
    write_annotations(small)
    for split in ("Train", "Eval"):
        dataset = small.content[f"{split}Dataset"]
        truth = json.loads(Path(dataset["anno_path"]).read_text())
        assert [category["id"] for category in truth["categories"]] == list(range(1, 81))
        assert {annotation["category_id"] for annotation in truth["annotations"]} == {1}


def test_the_target_is_reached_in_the_few_steps(small):
    steps = 2 * 8 // 2
    assert small.sparsity["pruning_iterations"] + small.sparsity["tunning_iterations"] < steps
    assert not {key for key in small.sparsity if key.endswith("_epochs")}


def test_weights_that_are_not_here_are_left_out(small):
    assert small.content["pretrain_weights"] is None
    assert small.dense is None
    kept = smoke(read_recipe(SPARSE, options=["pretrain_weights=sample:picodet_s_416_lcnet",
                                              f"save_dir={small.output.parent}"]))
    assert kept.content["pretrain_weights"] == "sample:picodet_s_416_lcnet"


def test_the_recipe_itself_is_left_as_it_was(tmp_path):
    recipe = read_recipe(SPARSE, options=[f"save_dir={tmp_path}"])
    before = recipe.digest
    smoke(recipe)
    assert recipe.digest == before
