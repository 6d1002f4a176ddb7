import dataclasses
import json
import math

import accuracy
import accuracy_run
import numpy as np
import pytest
from accuracy_methods import ALLOCATED, DEFAULT, DENSE_START, LEVERS, PRUNERS, RECIPES, Method, Size, combine
from accuracy_run import result_path
from accuracy_table import paired, table

from paddle_sparse_cb.errors import InputError
from paddle_sparse_cb.recipe.build import build, build_plan
from paddle_sparse_cb.recipe.layer_ratios import without_ratios
from paddle_sparse_cb.recipe.schema import read_recipe

ALL = [*combine(["dense", "dense+distill", "dense+unlabelled"]), *combine(["gmp", *(f"gmp+{one}" for one in LEVERS)])]


def result(method, score, seed=0, **more):
    return {
        "method": method,
        "mAP": score,
        "seed": seed,
        "AP50": 0.9,
        "zeros": 0.75,
        "macs": 0.4,
        "seconds": 100,
        **more,
    }


def test_the_table_has_means_spread_and_differences_of_the_seeds_that_both_methods_have():
    lines = table(
        [
            *(
                result("dense", score, seed, seconds=(100, 100, 900)[seed])
                for seed, score in enumerate((0.59, 0.61, 0.60))
            ),
            *(result("gmp75", score, seed) for seed, score in enumerate((0.57, 0.60))),
            *(result("gmp75+distill", score, seed) for seed, score in enumerate((0.58, 0.62, 0.99))),
            result("paddleslim75", 0.56, seed=0),
            result("gmp85", 0.5, seed=0),
        ]
    ).splitlines()
    cells = [" ".join(line.split()) for line in lines[2:]]
    assert cells == [
        "dense, trained on 0% 3 60.00 +- 1.00 90.0 75.000% 40.0% 100",
        "GMP 1x1 75% 2 58.50 +- 2.12 2.5% +- 0.8% +1.00 (1) 90.0 75.000% 40.0% 100",
        "GMP, distilled 1x1 75% 3 73.00 +- 22.61 -21.7% +- 21.7% +1.50 +- 0.50 (2) +2.00 (1) 90.0 75.000% 40.0% 100",
        "PaddleSlim's GMP 1x1 75% 1 56.00 5.1% -1.00 (1) 90.0 75.000% 40.0% 100",
        "GMP 1x1 85% 1 50.00 15.3% 90.0 75.000% 40.0% 100",
    ]


def test_results_without_counted_macs_are_still_shown():
    older = result("dense", 0.6)
    del older["macs"]
    assert table([older, result("gmp75", 0.5)]).splitlines()[2].split()[-2:] == ["75.000%", "100"]


def test_a_paired_difference_has_the_standard_error_of_its_mean():
    mean, error, count = paired({0: 3.0, 1: 5.0, 2: 4.0, 7: 0.0}, {0: 2.0, 1: 2.0, 2: 2.0, 8: 9.0})
    assert (mean, count) == (2.0, 3)
    assert error == pytest.approx(1 / 3**0.5)


def test_names_of_methods_are_read_as_they_are_written():
    for method in (*DEFAULT, *ALL, DENSE_START, Method("gmp", 0.625, (4, 2), ("distill", "se"))):
        assert Method.parse(str(method)) == method
    for name in ("", "gmp+", "rigl75", "gmp75+magic", "gmp75/../x"):
        with pytest.raises(InputError, match="a method"):
            Method.parse(name)


def test_a_selection_has_no_method_twice_and_none_whose_lever_acts_on_nothing():
    assert [str(one) for one in accuracy.select(["dense", "gmp", "gmp+permute"], [85], [(1, 1), (4, 1)])] == [
        "dense",
        "gmp85",
        "gmp85_4x1",
        "gmp85_4x1+permute",
    ]
    assert accuracy.select(None, None, None) == DEFAULT
    assert {one.ratio for one in accuracy.select(None, [90], [(4, 1)])} == {0, 0.9}
    assert [str(one) for one in accuracy.select(["gmp+allocate"], [80, 85], None)] == ["gmp85+allocate"]
    with pytest.raises(InputError, match="gmp80.allocate: there are ratios per layer for 75%, 85%, 90%"):
        Method.parse("gmp80+allocate").recipe(Size())
    with pytest.raises(InputError, match="no method is left: .* for 75%, 85%, 90%"):
        accuracy.select(["gmp+permute"], None, None)


def test_a_result_of_another_recipe_is_not_taken_for_done(tmp_path):
    method, size = Method("gmp", 0.75), Size(epochs=6)
    assert accuracy.read_result(tmp_path, method, 1, size) is None
    found = result("gmp75", 0.6, seed=1, digest=method.digest(size))
    result_path(tmp_path, method, 1).write_text(json.dumps(found))
    assert accuracy.read_result(tmp_path, method, 1, size) == found
    (tmp_path / "gmp85_seed1.json").write_text("{")
    (tmp_path / "gmp75+gone_seed1.json").write_text(json.dumps(found))  # a lever that another version has
    assert accuracy.read_results(tmp_path, size) == [found]
    assert accuracy.read_result(tmp_path, method, 2, size) is None
    assert accuracy.read_results(tmp_path, Size(epochs=7)) == []


def test_all_methods_train_alike():
    recipes = [method.recipe(Size()) for method in (*ALL, *DEFAULT)]
    for key in ("epoch", "LearningRate", "OptimizerBuilder", "TrainReader", "TrainDataset", "seed"):
        assert all(recipe.content[key] == recipes[0].content[key] for recipe in recipes)


def test_a_method_prunes_at_its_ratio_in_its_blocks():
    for method in (*ALL, *DEFAULT):
        if method.ratio:
            settings = method.recipe(Size()).pruning_config()
            assert (settings.ratio, settings.sparse_block) == (method.ratio, method.block)
    assert Method("oneshot", 0.9).recipe(Size()).pruning_config().schedule(100, 1000).at(0) == 0.9
    assert Method("gmp", 0.9).recipe(Size()).pruning_config().schedule(100, 1000).at(0) == 0.2


@pytest.mark.parametrize("lever", [name for name, lever in LEVERS.items() if not lever.of_paddleslim])
def test_a_lever_changes_what_it_names_and_the_plain_method_has_none(lever):
    plain, pulled = (Method("gmp", 0.85, (4, 1), levers).recipe(Size()) for levers in ((), (lever,)))
    given = LEVERS[lever]
    assert plain.distillation is None
    assert set(plain.sparsity) == {
        "ratio",
        "initial_ratio",
        "stable_epochs",
        "pruning_epochs",
        "tunning_epochs",
        "pruning_steps",
        "prune_params_type",
        "sparse_block",
    }
    changed = {option.partition("=")[0].partition(".")[0] for option in given.options}
    changed |= {"Sparsity"} if given.ratios else set()
    assert (pulled.distillation != plain.distillation) == ("Distillation" in changed)
    assert (pulled.sparsity != plain.sparsity) == ("Sparsity" in changed)
    assert (pulled.content != plain.content) == bool(changed - {"Distillation", "Sparsity"})
    assert pulled.digest != plain.digest


@pytest.mark.slow
@pytest.mark.parametrize("zeroed", [False, True])
def test_paddleslims_pruned_weights_are_zeroed_before_a_step_only_if_that_is_asked_for(zeroed):
    method = Method("paddleslim", 0.9, levers=("zeroed",) if zeroed else ())
    assert method.is_meaningful
    assert not Method("gmp", 0.9, levers=("zeroed",)).is_meaningful
    trained = build(method.recipe(Size()))
    (callback,) = accuracy_run.make_pruning(method, trained)
    callback.on_train_batch_end(0)
    (weight,) = (one for name, one in trained.network.named_parameters() if name == trained.plan.pruned[0].name)
    callback.on_epoch_end(0)  # zeroes them in any case
    pruned = weight.numpy() == 0
    assert 0.1 < pruned.mean() < 0.3
    weight.set_value(np.where(pruned, 9, weight.numpy()).astype("float32"))  # as the optimizer moves them
    callback.on_train_batch_end(1)
    assert (weight.numpy()[pruned] == (0 if zeroed else 9)).all()


def test_longer_trainings_stretch_pruning_and_learning_rate():
    recipe = Method("gmp", 0.85).recipe(Size(epochs=30))
    assert recipe.content["epoch"] == 30
    assert recipe.content["LearningRate"]["schedulers"][0]["max_epochs"] == 30
    assert recipe.sparsity["pruning_epochs"] + recipe.sparsity["tunning_epochs"] == 30


def test_every_pruner_has_a_recipe():
    assert all(Method(pruner, 0.75).recipe(accuracy.QUICK) for pruner in PRUNERS)
    assert {field.name for field in dataclasses.fields(Size)} == {"epochs", "images", "batch"}


def test_the_recipes_with_ratios_per_layer_are_what_the_comparison_trains():
    """They leave no more multiply-accumulates than one ratio in all layers, and have more zeros."""
    for ratio, name in ALLOCATED.items():
        recipe = read_recipe(RECIPES / name)
        method = Method("gmp", ratio, levers=("distill", "allocate")).recipe(Size())
        assert (recipe.sparsity["ratio"], recipe.sparsity["initial_ratio"]) == (ratio, method.sparsity["initial_ratio"])
        assert (recipe.distillation, recipe.sparsity["ratios"]) == (method.distillation, method.sparsity["ratios"])
        uniform, plan = build_plan(without_ratios(recipe)), build_plan(recipe)
        ratios = {layer.name: layer.ratio for layer in plan.pruned}
        kept = sum(layer.macs * (1 - ratios.get(layer.name, 0)) for layer in uniform.pruned)
        weights = [math.prod(layer.shape) for layer in uniform.pruned]
        zeros = sum(count * ratios.get(layer.name, 0) for count, layer in zip(weights, uniform.pruned))
        assert kept <= (1 - ratio) * sum(layer.macs for layer in uniform.pruned) * 1.002
        assert zeros / sum(weights) > ratio + 0.03


@pytest.mark.slow
def test_a_quick_comparison_ends_as_a_table_and_is_not_repeated(tmp_path, capfd):
    options = ["--quick", "--output", str(tmp_path), "--seeds", "1", "--ratios", "75", "--blocks", "4x1"]
    options += ["--methods", "gmp+distill+permute+allocate", "paddleslim"]
    accuracy.main(options)
    names = {"start_seed0", "gmp75_4x1+distill+permute+allocate_seed0", "paddleslim75_4x1_seed0"}
    assert {path.stem for path in tmp_path.glob("*.json")} == names
    found = json.loads((tmp_path / "gmp75_4x1+distill+permute+allocate_seed0.json").read_text())
    assert 0.87 <= found["zeros"] < 0.88
    assert 0.38 < found["macs"] < 0.39
    assert found["steps"] == 24
    assert 0 <= found["mAP"] <= found["AP50"] <= 1
    assert "GMP, distilled, channels permuted, ratios per layer" in capfd.readouterr().out
    accuracy.main(options)
    assert "0 runs to do" in capfd.readouterr().out


@pytest.mark.parametrize("flags", [["--ratios", "150"], ["--ratios", "nan"], ["--jobs", "0"], ["--blocks", "0x1"]])
def test_wrong_numbers_are_errors_before_anything_is_trained(flags, tmp_path):
    with pytest.raises(SystemExit) as error:
        accuracy.main(["--output", str(tmp_path), "--methods", "gmp", *flags])
    assert error.value.code == 2
    assert not list(tmp_path.iterdir())


def test_a_dense_map_of_zero_is_no_error():
    assert table([result("dense", 0.0), result("gmp75", 0.1)])


@pytest.mark.parametrize("content", ["{", "[1]", '{"mAP": 1}', '{"mAP": null}', "\xff"])
def test_a_damaged_result_is_left_out_with_a_line(content, tmp_path, capsys):
    path = result_path(tmp_path, Method("gmp", 0.75), 0)
    path.write_bytes(content.encode("latin-1"))
    assert accuracy.read_results(tmp_path, Size()) == []
    assert f"{path}: damaged and left out" in capsys.readouterr().err
