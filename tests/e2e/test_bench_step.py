"""`tools/bench_step.py` times steps of a real training."""

import bench_step
import pytest
from helpers import RECIPES

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("way", [bench_step.WAYS[0], bench_step.WAYS[2]], ids=lambda way: way.title)
def test_the_steps_of_a_recipe_are_timed_in_a_process_of_its_own(way):
    seconds = bench_step.time_steps(way, str(RECIPES / "picodet_s_garments.yml"), 2)
    assert len(seconds) == 2
    assert all(0.01 < one < 60 for one in seconds)
