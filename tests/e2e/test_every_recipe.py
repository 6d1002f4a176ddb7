"""Every recipe can be tried before its data are available, and the sparse ones end in sparse files."""

import json
import re

import pytest
from helpers import RECIPES

from paddle_sparse_cb.cli import main
from paddle_sparse_cb.deploy.lite.nb import read_nb
from paddle_sparse_cb.recipe.build import build
from paddle_sparse_cb.recipe.preflight import check_trainable
from paddle_sparse_cb.recipe.schema import read_recipe
from paddle_sparse_cb.recipe.smoke import smoke

# Recipes that differ from another one in their blocks alone: one of them is run, and the others are planned.
IN_BLOCKS = sorted(path.name for path in RECIPES.glob("*_block?x1.yml"))
RUN_IN_BLOCKS = "picodet_s_garments_sparse75_block4x1.yml"
OTHERS = sorted({path.name for path in RECIPES.glob("*.yml")} - set(IN_BLOCKS))
# The number of convolutions that a sparse recipe prunes, all of which Paddle-Lite has to run sparse.
PRUNED = {
    "picodet_m_320_coco_sparse75.yml": 95,
    "picodet_m_320_coco_sparse85.yml": 95,
    "picodet_m_416_coco_lcnet_sparse75.yml": 48,
    "picodet_m_416_coco_lcnet_sparse85.yml": 48,
    "picodet_s_192_animals_sparse75.yml": 40,
    "picodet_s_416_coco_lcnet_sparse75.yml": 40,
    "picodet_s_416_coco_lcnet_sparse85.yml": 40,
    "picodet_s_416_trees_sparse75.yml": 40,
    "picodet_s_416_voc_sparse75.yml": 40,
    "picodet_s_garments_sparse75.yml": 40,
    "picodet_s_garments_sparse75_allocated.yml": 38,  # ratio 0 for two layers
    "picodet_s_garments_sparse85.yml": 40,
    "picodet_s_garments_sparse85_allocated.yml": 40,
    "picodet_s_garments_sparse90_allocated.yml": 40,
    RUN_IN_BLOCKS: 38,  # as the recipe that it starts from
    "picodet_m_320_coco_sparse75_block4x1.yml": 94,  # blocks of four do not divide one layer
    "picodet_m_320_coco_sparse85_block4x1.yml": 94,
}


def blocks(recipe):
    """Returns the blocks of a recipe that define the network and what is done with an image."""
    content = smoke(read_recipe(RECIPES / recipe)).content
    others = ("EvalDataset", "LearningRate", "OptimizerBuilder", "TestDataset", "TrainDataset")
    return json.dumps(
        {key: value for key, value in content.items() if key[0].isupper() and key not in others}, sort_keys=True
    )


# Of recipes with the same blocks one is trained, the one with the highest ratio. PaddleDetection's own files configure
# the same training as picodet_m_320_coco_sparse75.yml; `test_paddledetection.py` trains them.
TRAINED = sorted(
    {blocks(recipe): recipe for recipe in sorted(OTHERS, key=lambda name: (name in PRUNED, name))}.values()
)
TRAINED.remove("picodet_m_320_coco_sparse85.yml")
TRAINED.remove("picodet_s_416_trees_sparse75.yml")  # `test_whole_runs.py` trains it
DEMO = "picodet_s_192_animals_sparse75.yml"  # not marked slow, so that `make test-fast` has a whole run too


@pytest.mark.parametrize("recipe", [*OTHERS, RUN_IN_BLOCKS])
def test_a_recipe_can_be_trained_and_all_its_planned_layers_will_run_sparse(recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = build(smoke(read_recipe(RECIPES / recipe)))
    check_trainable(run)
    assert len(run.plan.pruned) == PRUNED.get(recipe, 0)


@pytest.mark.parametrize(
    "recipe",
    [pytest.param(recipe, marks=() if recipe == DEMO else pytest.mark.slow) for recipe in (*TRAINED, RUN_IN_BLOCKS)],
)
def test_a_recipe_runs_for_a_few_steps_on_packaged_photographs(recipe, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", str(RECIPES / recipe), "--smoke"]) == 0, capsys.readouterr()
    (output,) = (tmp_path / "output").iterdir()
    name = recipe[: -len(".yml")]
    assert output.name == f"{name}_smoke"
    report = json.loads((output / "report.json").read_text())
    rows = {row["name"]: row for row in report["rows"]}
    if recipe not in PRUNED:
        assert rows.keys() == {"dense"}
        return
    dense, sparse = rows["dense"], rows["sparse"]
    assert sparse["sparsity"] >= int(re.search(r"sparse(\d\d)", name)[1]) / 100
    assert sparse["nb_bytes"] < 0.7 * dense["nb_bytes"]
    assert sum(layer["pruned"] for layer in report["layers"]) == PRUNED[recipe]
    assert sparse["sparse_convs"] == PRUNED[recipe]
    assert dense["sparse_convs"] == 0
    in_pairs = [op for op in read_nb(output / "model_sparse.nb").operators if op.sparse and op.attributes["flag_semi"]]
    assert len(in_pairs) == (PRUNED[recipe] if recipe in IN_BLOCKS else 0)


def test_every_layer_of_the_recipes_in_blocks_is_pruned_in_whole_blocks(capsys):
    for recipe in IN_BLOCKS:
        assert main(["plan", str(RECIPES / recipe)]) == 0, capsys.readouterr()
        rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.endswith("pruned")]
        dense_recipe = re.sub(r"_block.x1", "", recipe)
        assert len(rows) == PRUNED.get(recipe, PRUNED[dense_recipe])
        assert {row[-2] for row in rows} == {re.search(r"_block(.x1)", recipe)[1]}
