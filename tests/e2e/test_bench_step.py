"""`tools/bench_step.py` times steps of a real training."""

import sys

import bench_step
import pytest
from helpers import RECIPES

pytestmark = pytest.mark.slow


def test_steps_of_a_recipe_are_timed_and_own_depthwise_convolutions_make_them_faster():
    recipe = str(RECIPES / "picodet_s_garments.yml")
    plain, own = (bench_step.time_steps(bench_step.WAYS[way], recipe, 2) for way in (1, 2))
    assert len(plain) == len(own) == 2
    assert min(plain) > 1.5 * min(own)  # five times on an idle machine


@pytest.mark.parametrize("flag", ["--steps", "--rounds"])
def test_numbers_below_one_are_errors(flag, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["bench_step.py", "RECIPE", flag, "0"])
    with pytest.raises(SystemExit) as error:
        bench_step.main()
    assert error.value.code == 2
    assert f"{flag} must be a whole number of at least 1, got 0" in capsys.readouterr().err
