"""`paddle-sparse plan --measure`: the models that it makes, what it prints, and what it keeps."""

import json

import pytest
from helpers import RECIPES

from paddle_sparse_cb.cli import main
from paddle_sparse_cb.detection import config
from paddle_sparse_cb.detection.network import build_network
from paddle_sparse_cb.recipe.bench_models import ModelMaker
from paddle_sparse_cb.recipe.build import make_recipe_plan
from paddle_sparse_cb.recipe.plan_measure import PlanRequest, measure_plan
from paddle_sparse_cb.recipe.schema import read_recipe
from paddle_sparse_cb.report.plan_latency import plan_latency_table
from paddle_sparse_cb.utils.layers import named_weights
from paddle_sparse_cb.utils.result_cache import cached_result

SPARSE = RECIPES / "picodet_s_416_trees_sparse75.yml"
SMALL = "TestReader.inputs_def.image_shape=[3,128,128]"


def zero_blocks(network, layers, rows):
    """The fraction of blocks of output channels that are zero."""
    weights = {name: weight.numpy() for name, _, weight in named_weights(network)}
    blocks = [weights[layer.name].reshape(layer.shape[0] // rows, rows, -1) == 0 for layer in layers]
    return sum(block.all(1).sum() for block in blocks) / sum(block[:, 0].size for block in blocks)


def test_weights_are_pruned_in_the_ratio_and_block_of_the_row_whatever_the_recipe_says(tmp_path):
    """Ratios and blocks of single layers go with the recipe's own ratio and block."""
    special = "neck.conv_t.convs.0.conv.weight"
    options = [SMALL, f"Sparsity.ratios={{{special}: 0.9}}"]
    recipe = read_recipe(SPARSE, options=options)
    network = build_network(config.load(recipe.content, recipe.files))
    plan = make_recipe_plan(recipe, network)
    maker = ModelMaker(recipe, network, plan, tmp_path, lambda line: None)
    (own,) = (layer for layer in plan.pruned if layer.name == special)
    others = [layer for layer in plan.pruned if layer != own and layer.shape[0] % 4 == 0]
    maker.pruned(0.75, (4, 1)).load()
    assert zero_blocks(network, others, 4) == pytest.approx(0.75, abs=0.01)
    assert zero_blocks(network, [own], 4) == pytest.approx(0.9, abs=0.01)
    maker.pruned(0.6, (1, 1)).load()
    assert zero_blocks(network, [own], 1) == pytest.approx(0.6, abs=0.01)
    assert zero_blocks(network, others, 4) == pytest.approx(0.6**4, abs=0.03)


@pytest.mark.slow
def test_size_and_latency_are_measured_for_each_ratio_and_block(tmp_path):
    recipe = read_recipe(SPARSE, options=[SMALL, f"save_dir={tmp_path / 'output'}"])
    result = measure_plan(recipe, PlanRequest([0.75], [(1, 1), (4, 1)], seconds=0.1))
    rows = result["rows"]
    assert [(row["kind"], row["block"]) for row in rows] == [
        ("dense", [1, 1]),
        ("sparse", [1, 1]),
        ("sparse", [4, 1]),
    ]
    assert [row["ratio"] for row in rows] == pytest.approx([0, 0.75, 0.75], abs=5e-3)
    for size in ("mb", "nb_mb"):
        dense, random, blocks = (row[size] for row in rows)
        assert blocks <= random < 0.7 * dense
    assert all(row["speedup"] == pytest.approx(rows[0]["ms"] / row["ms"] - 1) for row in rows[1:])
    assert not (tmp_path / "output").exists()
    lines = [line.split() for line in plan_latency_table(result).splitlines()]
    assert [line[:2] for line in lines[2:5]] == [["dense", "-"], ["75%", "1x1"], ["75%", "4x1"]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ratio", "0.75"], "--ratio and --block need --measure"),
        (["--measure", "--ratio", "75"], "--ratio must be a fraction from 0.01 to below 1, got 75"),
        (["--measure", "--block", "4"], "--block: must be rows x columns, such as 4x1, got '4'"),
    ],
)
def test_invalid_input_is_an_error_of_one_line(arguments, message, capsys):
    assert main(["plan", str(SPARSE), *arguments]) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert message in line


def test_a_result_is_kept_for_its_key_only(tmp_path, monkeypatch):
    monkeypatch.setenv("PADDLE_SPARSE_CACHE", str(tmp_path))
    assert cached_result("plan", {"ratio": [0.75]}, lambda: {"ms": 1}, lambda result: False) == ({"ms": 1}, False)
    assert cached_result("plan", {"ratio": [0.75]}, lambda: {"ms": 2}) == ({"ms": 2}, False)
    assert cached_result("plan", {"ratio": (0.75,)}, lambda: {"ms": 3}) == ({"ms": 2}, True)
    assert cached_result("plan", {"ratio": [0.85]}, lambda: {"ms": 4}) == ({"ms": 4}, False)
    assert cached_result("bench", {"ratio": [0.75]}, lambda: {"ms": 5}) == ({"ms": 5}, False)


@pytest.mark.parametrize("content", ["", "[]", "{}", "null", '{"key": {"ratio": 1}, "result": 5}', "\ufffd{"])
def test_a_damaged_file_in_the_cache_is_replaced(content, tmp_path, monkeypatch):
    monkeypatch.setenv("PADDLE_SPARSE_CACHE", str(tmp_path))
    cached_result("plan", {"ratio": 1}, lambda: {"ms": 1})
    (path,) = tmp_path.glob("plan/*.json")
    path.write_text(content)
    assert cached_result("plan", {"ratio": 1}, lambda: {"ms": 2}) == ({"ms": 2}, False)
    assert json.loads(path.read_text())["result"] == {"ms": 2}
