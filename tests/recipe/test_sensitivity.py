"""`paddle-sparse sensitivity` and `allocate`, and recipes with `scope: sensitivity`."""

import json
import signal
import subprocess
import sys
import time

import pytest
import yaml
from helpers import RECIPES

from paddle_sparse_cb import InputError
from paddle_sparse_cb.cli import main
from paddle_sparse_cb.pruning.sensitivity import LayerSensitivity, Sensitivity
from paddle_sparse_cb.recipe.build import build_plan
from paddle_sparse_cb.recipe.layer_ratios import runs_sparse
from paddle_sparse_cb.recipe.schema import read_recipe

SPARSE = str(RECIPES / "picodet_s_416_trees_sparse75.yml")
NAME = "picodet_s_416_trees_sparse75"
WEIGHTS = "pretrain_weights=sample:picodet_s_416_lcnet"
# Two layers are left to prune.
SMALL = [
    "TestReader.inputs_def.image_shape=[3,64,64]",
    "Sparsity.skip=['backbone.*','neck.*','head.*_pw[1-3].*','*se.*']",
]
FEW = ["-o", WEIGHTS, *SMALL]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def plan():
    return build_plan(read_recipe(SPARSE))


def write_sensitivity(plan, path, losses=lambda index: 0.01 * (index % 7), ratios=(0.6, 0.9)):
    """Writes a file as if each layer of a plan had been measured."""
    layers = [
        LayerSensitivity(
            layer.name, layer.shape, layer.block, layer.macs, {ratio: 1 + losses(index) * ratio for ratio in ratios}
        )
        for index, layer in enumerate(plan.pruned)
    ]
    macs = sum(layer.macs for layer in plan.layers)
    Sensitivity("loss", False, 1.0, ratios, tuple(layers), macs, "made").save(path)
    return path


def run(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    return code, capsys.readouterr()


def test_the_loss_of_each_planned_layer_is_measured_and_its_ratios_are_allocated(folder, capsys):
    arguments = [SPARSE, "--ratio", "0.6,0.9", "--images", "2", *FEW]
    code, output = run(capsys, "sensitivity", *arguments)
    assert code == 0, output.err
    made = folder / "output" / NAME
    measured = Sensitivity.load(made / "sensitivity.json")
    names = [layer.name for layer in build_plan(read_recipe(SPARSE, options=[WEIGHTS, *SMALL])).pruned]
    assert [layer.name for layer in measured.layers] == names
    assert len(names) == 2
    assert measured.missing() == []
    assert measured.baseline > 0
    assert len({value for layer in measured.layers for value in layer.values.values()}) > len(names)
    assert (made / "sensitivity.svg").read_text().startswith("<svg")
    assert "warning: the prediction heads are untrained" in output.err
    assert f"ratios from it: paddle-sparse allocate {SPARSE} -o " in output.out
    assert " --macs-of-ratio 0.75" in output.out
    assert output.out.count("\n" + names[0]) + output.out.startswith(names[0]) == 1

    code, output = run(capsys, "sensitivity", *arguments, "--json")
    assert code == 0
    assert json.loads(output.out) == measured.to_dict()
    assert f"{2 * len(names)} of {2 * len(names)} results are from" in output.err

    code, output = run(capsys, "allocate", SPARSE, "--target-sparsity", "0.7", *FEW)
    assert code == 0, output.err
    ratios = yaml.safe_load((made / "ratios.yml").read_text())["Sparsity"]["ratios"]
    assert list(ratios) == names
    code, output = run(capsys, "plan", SPARSE, "--slim_config", made / "ratios.yml", "--json", *FEW)
    assert code == 0
    planned = {one["name"]: one["ratio"] for one in json.loads(output.out)["layers"] if one["pruned"]}
    assert planned == {name: ratio for name, ratio in ratios.items() if ratio}


@pytest.mark.slow
def test_map_can_be_measured_in_place_of_the_loss(folder, capsys):
    code, output = run(
        capsys, "sensitivity", SPARSE, "--metric", "map", "--ratio", "0.9", *FEW, "EvalDataset.sample_num=2"
    )
    assert code == 0, output.err
    measured = Sensitivity.load(folder / "output" / NAME / "sensitivity.json")
    assert (measured.metric, measured.higher_is_better) == ("mAP", True)
    assert 0 <= measured.baseline <= 1


@pytest.mark.slow
def test_a_killed_measurement_goes_on_where_it_stopped(folder, capsys):
    arguments = ["sensitivity", SPARSE, "--ratio", "0.5,0.6,0.7,0.8,0.9", "--images", "2", *FEW]
    path = folder / "output" / NAME / "sensitivity.json"
    process = subprocess.Popen([sys.executable, "-m", "paddle_sparse_cb", *arguments], stderr=subprocess.DEVNULL)
    while process.poll() is None and not path.is_file():
        time.sleep(0.02)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    done = Sensitivity.load(path)
    assert done.missing()
    code, output = run(capsys, *arguments)
    assert code == 0, output.err
    measured = Sensitivity.load(path)
    assert measured.missing() == []
    assert "results are from" in output.err
    for before, after in zip(done.layers, measured.layers):
        assert before.values.items() <= after.values.items()


def test_scope_sensitivity_allocates_the_ratio_of_the_recipe(plan, folder, capsys):
    write_sensitivity(plan, folder / "s.json")
    scope = ["Sparsity.scope=sensitivity", "Sparsity.sensitivity=s.json"]
    for ratio in (0.7, 0.8):
        recipe = read_recipe(SPARSE, options=[*scope, f"Sparsity.ratio={ratio}"])
        allocated = build_plan(recipe)
        zeros = sum(layer.ratio * layer.shape[0] * layer.shape[1] for layer in allocated.pruned)
        assert zeros / sum(layer.shape[0] * layer.shape[1] for layer in plan.pruned) == pytest.approx(ratio, abs=1e-3)
        assert all(layer.ratio >= 0.6 for layer in allocated.pruned)
        assert len({layer.ratio for layer in allocated.pruned}) > 1
        assert recipe.pruning_config().scope == "uniform"
    dense = [layer.reason for layer in allocated.layers if layer.reason.startswith("ratio 0")]
    assert len(dense) + len(allocated.pruned) == len(plan.pruned)
    code, output = run(capsys, "plan", SPARSE, "-o", *scope)
    assert code == 0
    assert "ratio" in output.out


def test_the_file_of_the_output_folder_is_the_default_and_changes_the_digest(plan, folder):
    options = ["Sparsity.scope=sensitivity"]
    recipe = read_recipe(SPARSE, options=options)
    with pytest.raises(InputError, match=rf"scope: sensitivity: output/{NAME}/sensitivity\.json: no such file"):
        build_plan(recipe)
    write_sensitivity(plan, folder / "output" / NAME / "sensitivity.json")
    first, ratios = recipe.digest, [layer.ratio for layer in build_plan(recipe).pruned]
    write_sensitivity(plan, folder / "output" / NAME / "sensitivity.json", lambda index: 0.01 * (index % 5))
    assert recipe.digest != first
    assert [layer.ratio for layer in build_plan(recipe).pruned] != ratios


def test_no_layer_gets_a_ratio_at_which_a_runtime_of_the_recipe_runs_it_dense(folder):
    """MNN needs more than 60%, Paddle-Lite at least 60%; and a block is zero as a whole."""
    options = ["export.mnn=true"]
    recipe = read_recipe(SPARSE, options=options)
    plan = build_plan(recipe)
    allows, in_lite = runs_sparse(recipe, plan), runs_sparse(read_recipe(SPARSE), plan)
    exact = [layer.name for layer in plan.pruned if layer.shape[0] * layer.shape[1] % 5 == 0]
    for layer in plan.pruned:
        assert in_lite(layer.name, 0.6)
        assert not in_lite(layer.name, 0.59)
        assert allows(layer.name, 0.6) == (layer.name not in exact)
        assert allows(layer.name, 0.61)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["Sparsity.ratio=0.95"], "the target sparsity 0.95 cannot be reached"),
        (["Sparsity.sparse_block=[4,1]"], "has block [4, 1] in the plan and [1, 1] where it was measured"),
        (["Sparsity.prune_squeeze_excite=true"], "was not measured; measure the sensitivity of this network"),
        (["LCNet.scale=1.0"], " in the plan and "),
        (["Sparsity.sensitivity=none.json"], "none.json: no such file; paddle-sparse sensitivity RECIPE writes it"),
        (["Sparsity.sensitivity=5"], "sensitivity must be the name of a file, got 5"),
        (["Sparsity.ratios={'*': 0.9}"], "ratios: scope sensitivity decides them; leave ratios or this scope out"),
        (["Sparsity.scope=sensitivities"], "scope must be one of uniform, global, erk, got 'sensitivities'"),
    ],
)
def test_a_scope_that_cannot_be_used_is_an_error_of_one_line(options, message, plan, folder, capsys):
    write_sensitivity(plan, folder / "s.json")
    scope = ["Sparsity.scope=sensitivity", "Sparsity.sensitivity=s.json"]
    code, output = run(capsys, "plan", SPARSE, "-o", *scope, *options)
    assert code == 2
    assert message in output.err
    assert len(output.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sensitivity", str(RECIPES / "picodet_s_416_trees.yml")], "a dense recipe prunes no layers"),
        (["sensitivity", SPARSE], "final.pdparams: not trained yet; run: paddle-sparse train "),
        (["sensitivity", SPARSE, "-o", "weights=none"], "weights: none.pdparams does not exist"),
        (["sensitivity", SPARSE, "--ratio", "75", *FEW], "--ratio must be a fraction from 0.01 to below 1, got 75"),
        (["sensitivity", SPARSE, "--ratio", "half", *FEW], "--ratio: invalid value 'half'"),
        (["sensitivity", SPARSE, "--images", "0", *FEW], "--images must be a whole number of at least 1, got 0"),
        (["sensitivity", SPARSE, "--images", "100000", *FEW], "images, 100000 are asked for"),
        (["sensitivity", "none"], "none: no such recipe"),
        (
            ["allocate", SPARSE],
            "give one of --target-sparsity, --target-macs, --macs-of-ratio and --target-latency, got 0",
        ),
        (["allocate", SPARSE, "--target-sparsity", "0.7", "--target-macs", "0.5"], "got 2"),
        (["allocate", SPARSE, "--target-latency", "5"], "--target-latency needs --costs"),
        (["allocate", SPARSE, "--target-macs", "0.5", "--costs", "l"], "--costs is for --target-latency"),
        (["allocate", SPARSE, "--target-sparsity", "0.7"], "sensitivity.json: no such file; paddle-sparse sensitivity"),
        (["allocate", "s.json", "--target-sparsity", "70"], "must be a fraction from 0.0 to below 1, got 70"),
        (["allocate", "s.json", "--target-sparsity", "0.95"], "0.95 cannot be reached: with all layers at their"),
        (["allocate", "s.json", "--target-macs", "0.2"], "at most 0.2 of the dense network's, cannot be reached"),
        (
            ["allocate", "s.json", "--macs-of-ratio", "85"],
            "macs_of_ratio must be a fraction from 0.0 to below 1, got 85",
        ),
        (["allocate", "s.json", "--macs-of-ratio", "0.99"], "those of ratio 0.99 in all layers ("),
        (["allocate", "s.json", "--macs-of-ratio", "0.8", "--costs", "l"], "--costs is for --target-latency"),
        (["allocate", "s.json", "--target-latency", "1", "--costs", "none"], "none: no such file; paddle-sparse bench"),
        (["allocate", "s.json", "--target-macs", "0.5", "-o", "epoch=1"], "-o, --slim_config and --smoke are for"),
        (["allocate", "none.json", "--target-macs", "0.5"], "none.json: no such file"),
    ],
)
def test_invalid_input_is_an_error_of_one_line(arguments, message, plan, folder, capsys):
    write_sensitivity(plan, folder / "s.json")
    code, output = run(capsys, *arguments)
    assert code == 2
    assert message in output.err.splitlines()[-1]
    assert output.out == ""
    assert not list(folder.rglob("ratios.yml"))


def test_a_sensitivity_file_alone_is_allocated_and_printed_as_json(plan, folder, capsys):
    write_sensitivity(plan, folder / "s.json")
    code, output = run(capsys, "allocate", "s.json", "--target-macs", "0.4", "--json", "--output", "made/r.yml")
    assert code == 0
    found = json.loads(output.out)
    ratios = yaml.safe_load((folder / "made" / "r.yml").read_text())["Sparsity"]["ratios"]
    assert {one["name"]: one["ratio"] for one in found["layers"]} == ratios
    assert found["file"] == "made/r.yml"
    assert "reached 0.3" in found["target"] or "reached 0.4000" in found["target"]


def test_the_macs_of_a_ratio_are_those_of_the_layers_that_a_recipe_plans(plan, folder, capsys):
    write_sensitivity(plan, folder / "output" / NAME / "sensitivity.json")
    code, output = run(capsys, "allocate", SPARSE, "--macs-of-ratio", "0.8", "--json")
    assert code == 0
    found = json.loads(output.out)
    total = sum(layer.macs for layer in plan.layers)
    uniform = 1 - 0.8 * sum(layer.macs for layer in plan.pruned) / total
    assert uniform - 0.02 < found["macs"] <= uniform + 1e-4


def test_the_ratios_are_a_base_of_a_recipe(plan, folder, capsys):
    write_sensitivity(plan, folder / "s.json")
    assert run(capsys, "allocate", "s.json", "--target-sparsity", "0.8")[0] == 0
    (folder / "mine.yml").write_text(f"_BASE_: [{SPARSE}, ratios.yml]\npretrain_weights: null\n")
    ratios = yaml.safe_load((folder / "ratios.yml").read_text())["Sparsity"]["ratios"]
    made = {layer.name: layer.ratio for layer in build_plan(read_recipe("mine.yml")).pruned}
    assert made == {name: ratio for name, ratio in ratios.items() if ratio}
    # Ratios that the recipe has are no obstacle to new ones.
    write_sensitivity(plan, folder / "output" / "mine" / "sensitivity.json")
    code, output = run(capsys, "allocate", "mine.yml", "--target-sparsity", "0.7")
    assert code == 0, output.err
    assert "reached 0.70" in output.out


def test_a_recipe_names_no_file_that_is_written(folder, capsys):
    """A recipe may come from a stranger: the measurement goes to the output folder, whatever file it reads."""
    other = folder / "other.json"
    code, output = run(
        capsys, "sensitivity", SPARSE, "--ratio", "0.9", "--images", "1", *FEW, f"Sparsity.sensitivity={other}"
    )
    assert code == 0, output.err
    assert {path.name for path in folder.iterdir()} == {"output"}
    assert f"note: the recipe takes its ratios from {other}, not from output/{NAME}/sensitivity.json" in output.err
