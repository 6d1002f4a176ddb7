import json

import accuracy
import pytest


def result(arm, score, **more):
    return {"arm": arm, "mAP": score, "AP50": 0.9, "zeros": 0.75, "seconds": 100, **more}


def test_the_table_tells_mean_spread_and_what_is_lost_of_the_dense_mean():
    lines = accuracy.table(
        [
            result("dense", 0.59),
            result("dense", 0.61),
            result("gmp75", 0.57),
            result("gmp75", 0.60),
            result("gmp75", 0.594),
        ]
    ).splitlines()
    assert lines[2].split() == ["dense,", "trained", "on", "0%", "2", "60.00", "+-", "1.41", "90.0", "75.000%", "100"]
    assert lines[3].split()[-9:] == ["75%", "3", "58.80", "+-", "1.59", "2.0%", "90.0", "75.000%", "100"]
    assert len(lines) == 4  # no line for what has not been run


def test_a_result_of_another_recipe_is_not_taken_for_done(tmp_path):
    arm, size = accuracy.Method("gmp", 0.75), accuracy.Size(epochs=6)
    assert not accuracy.is_done(tmp_path, arm, 1, size)
    accuracy.result_path(tmp_path, arm, 1).write_text(json.dumps(result("gmp75", 0.6, digest=arm.recipe(size).digest)))
    assert accuracy.is_done(tmp_path, arm, 1, size)
    assert not accuracy.is_done(tmp_path, arm, 2, size)
    assert not accuracy.is_done(tmp_path, arm, 1, accuracy.Size(epochs=7))


def test_all_ways_of_a_ratio_train_alike():
    recipes = [arm.recipe(accuracy.Size()) for arm in accuracy.METHODS]
    for key in ("epoch", "LearningRate", "OptimizerBuilder", "TrainReader", "TrainDataset"):
        assert all(recipe.content[key] == recipes[0].content[key] for recipe in recipes)


def test_a_distilled_way_differs_from_the_plain_one_in_its_digest_and_in_nothing_that_it_trains_with():
    plain, distilled = (accuracy.Method(name, 0.85).recipe(accuracy.Size()) for name in ("gmp", "gmp_distilled"))
    assert plain.distillation is None
    assert distilled.distillation is not None
    assert distilled.content == plain.content
    assert distilled.sparsity == plain.sparsity
    assert distilled.digest != plain.digest


def test_pruning_squeeze_excite_differs_from_the_plain_way_in_the_pruned_layers_only():
    plain, more = (accuracy.Method(name, 0.75).recipe(accuracy.Size()) for name in ("gmp", "gmp_se"))
    assert more.content == plain.content
    assert more.sparsity == {**plain.sparsity, "prune_squeeze_excite": True}


def test_longer_arms_stretch_pruning_and_learning_rate():
    recipe = accuracy.Method("gmp", 0.85).recipe(accuracy.Size(epochs=30))
    assert recipe.content["epoch"] == 30
    assert recipe.content["LearningRate"]["schedulers"][0]["max_epochs"] == 30
    assert recipe.sparsity["pruning_epochs"] + recipe.sparsity["tunning_epochs"] == 30
    assert recipe.pruning_config().ratio == 0.85


@pytest.mark.slow
def test_a_run_ends_as_one_file_with_all_zeros_of_its_ratio(tmp_path, monkeypatch):
    for arm in ("start", "gmp75"):
        options = f"--output {tmp_path} --arm {arm} --images 16 --epochs 2"
        monkeypatch.setattr("sys.argv", ["accuracy.py", *options.split()])
        assert not accuracy.main()
    assert {path.name for path in tmp_path.iterdir()} == {"start.pdparams", "start_seed0.json", "gmp75_seed0.json"}
    found = json.loads((tmp_path / "gmp75_seed0.json").read_text())
    assert 0.75 <= found["zeros"] < 0.7505
    assert 0 <= found["mAP"] <= found["AP50"] <= 1
