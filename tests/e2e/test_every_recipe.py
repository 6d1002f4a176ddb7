"""Every recipe can be tried before its data are there, and the published ones end in sparse files."""

import json
import subprocess
import sys

import pytest
from helpers import RECIPES

pytestmark = pytest.mark.slow

ALL = sorted(path.name for path in RECIPES.glob("*.yml"))
# What the plan prunes, all of which Paddle-Lite has to run sparse; the others have fewer.
PLANNED = {"picodet_m_320_coco_sparse75.yml": 75, "picodet_m_320_coco_sparse85.yml": 75}


@pytest.mark.parametrize("recipe", ALL)
def test_every_recipe_runs_for_a_few_steps_on_packaged_photographs(recipe, tmp_path):
    done = subprocess.run([sys.executable, "-m", "paddle_sparse_cb", "train", str(RECIPES / recipe), "--smoke"],
                          cwd=tmp_path, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    output, = (tmp_path / "output").iterdir()
    assert output.name == recipe[:-len(".yml")] + "_smoke"
    rows = {row["name"]: row for row in json.loads((output / "report.json").read_text())["rows"]}
    if "_sparse" not in recipe:
        assert "sparse" not in rows
        return
    dense, sparse = rows["dense"], rows["sparse"]
    assert sparse["sparsity"] >= int(recipe[:-len(".yml")][-2:]) / 100
    assert sparse["nb_bytes"] < 0.7 * dense["nb_bytes"]
    assert sparse["sparse_convs"] == PLANNED.get(recipe, sparse["sparse_convs"])
    assert sparse["sparse_convs"] >= 40
    assert dense["sparse_convs"] == 0
