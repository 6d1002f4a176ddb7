"""From a measured sensitivity to verified files with ratios per layer."""

import json

import pytest
from helpers import RECIPES

from paddle_sparse_cb.cli import main

RECIPE = str(RECIPES / "picodet_s_416_trees_sparse75.yml")
SCOPE = ["--smoke", "-o", "Sparsity.scope=sensitivity"]


@pytest.mark.slow
def test_a_recipe_with_scope_sensitivity_trains_resumes_and_passes_the_verification(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["sensitivity", RECIPE, "--smoke", "--ratio", "0.6,0.9", "--images", "2"]) == 0, capsys.readouterr()
    assert main(["train", RECIPE, *SCOPE]) == 0, capsys.readouterr()
    (output,) = (tmp_path / "output").iterdir()
    assert (output / "sensitivity.json").is_file()  # a training moves files of earlier ones aside, and not this one
    layers = [layer for layer in json.loads((output / "report.json").read_text())["layers"] if layer["pruned"]]
    ratios = {round(layer["zeros"] / layer["numel"], 2) for layer in layers}
    assert len(ratios) > 1
    assert min(ratios) >= 0.6
    assert main(["verify", RECIPE, *SCOPE]) == 0, capsys.readouterr()
    assert main(["train", RECIPE, "--resume", *SCOPE]) == 0, capsys.readouterr()
