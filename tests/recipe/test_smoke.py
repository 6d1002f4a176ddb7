import json
from pathlib import Path

import pytest
from helpers import RECIPES

from paddle_sparse_cb.recipe.schema import read_recipe
from paddle_sparse_cb.recipe.smoke import smoke, write_annotations

SPARSE = RECIPES / "picodet_s_416_trees_sparse75.yml"


@pytest.fixture
def smoke_recipe(tmp_path):
    return smoke(read_recipe(SPARSE, options=[f"save_dir={tmp_path}", "num_classes=80", "pretrain_weights=/none/here"]))


def test_a_smoke_recipe_keeps_the_network_and_the_exported_size(smoke_recipe):
    recipe = read_recipe(SPARSE)
    assert smoke_recipe.input_size == recipe.input_size
    assert smoke_recipe.pruning_config().ratio == recipe.pruning_config().ratio
    for block in ("LCNet", "LCPAN", "PicoHeadV2", "OptimizerBuilder"):
        assert smoke_recipe.content[block] == recipe.content[block]


def test_a_smoke_recipe_has_its_own_output_folder_and_digest(smoke_recipe):
    assert smoke_recipe.output.name == "picodet_s_416_trees_sparse75_smoke"
    assert smoke_recipe.digest != read_recipe(SPARSE, options=["num_classes=80"]).digest


def test_the_smoke_annotations_have_the_categories_of_the_recipe(smoke_recipe):
    assert not smoke_recipe.output.exists()  # nothing is written before the data is needed
    write_annotations(smoke_recipe)
    for split in ("Train", "Eval"):
        dataset = smoke_recipe.content[f"{split}Dataset"]
        truth = json.loads(Path(dataset["anno_path"]).read_text())
        assert [category["id"] for category in truth["categories"]] == list(range(1, 81))
        assert {annotation["category_id"] for annotation in truth["annotations"]} == {1}


def test_the_target_ratio_is_reached_within_the_steps_of_a_smoke_run(smoke_recipe):
    steps = 2 * 8 // 2
    assert smoke_recipe.sparsity["pruning_iterations"] + smoke_recipe.sparsity["tunning_iterations"] < steps
    assert not {key for key in smoke_recipe.sparsity if key.endswith("_epochs")}


def test_weights_that_are_not_on_this_machine_are_dropped(smoke_recipe):
    assert smoke_recipe.content["pretrain_weights"] is None
    assert smoke_recipe.dense is None
    kept = smoke(
        read_recipe(
            SPARSE, options=["pretrain_weights=sample:picodet_s_416_lcnet", f"save_dir={smoke_recipe.output.parent}"]
        )
    )
    assert kept.content["pretrain_weights"] == "sample:picodet_s_416_lcnet"


def test_the_original_recipe_is_not_changed(tmp_path):
    recipe = read_recipe(SPARSE, options=[f"save_dir={tmp_path}"])
    before = recipe.digest
    smoke(recipe)
    assert recipe.digest == before
