"""Sparse MNN models on an emulated ARM processor, made from packages as `make arm` does it."""

import os
from dataclasses import replace

import arm_emulated
import arm_emulation
import arm_operators
import numpy as np
import pytest
from helpers import RECIPES

from paddle_sparse_cb.errors import PipelineError

pytestmark = pytest.mark.xdist_group("arm_emulated")


@pytest.fixture(scope="module")
def emulator(tmp_path_factory):
    pytest.importorskip("MNN")
    try:
        return arm_emulation.prepare(tmp_path_factory.mktemp("emulator"))
    except PipelineError as error:
        if "CI" in os.environ:
            raise
        pytest.skip(str(error))


@pytest.mark.slow
def test_sparse_models_compute_the_same_on_arm_with_fewer_instructions(emulator, tmp_path):
    recipe = RECIPES / "picodet_s_416_coco_lcnet.yml"
    rows = arm_emulated.measure(emulator, recipe, 96, [0.75], tmp_path)
    assert arm_emulated.shortfalls(rows) == []
    dense, random, blocks = rows
    assert [(row.ratio, row.block) for row in rows] == [(0.0, 1), (0.75, 1), (0.75, 4)]
    assert 15e6 < dense.instructions < 30e6
    assert dense.instructions > 1.05 * random.instructions
    assert dense.instructions > 1.3 * blocks.instructions
    assert max(random.size, blocks.size) < 0.65 * dense.size
    assert all(row.error > 0 for row in rows)  # another processor rounds differently
    assert len(arm_emulated.table(rows).splitlines()) == 5


@pytest.mark.slow
def test_single_operators_compute_the_same_on_arm(emulator, tmp_path):
    differences = arm_operators.compare(emulator, tmp_path)
    assert arm_operators.shortfalls(differences) == []
    assert len(differences) > 120
    assert any(one.x86 != one.arm for one in differences)


def test_a_difference_and_a_model_that_saves_nothing_are_reported():
    dense = arm_emulated.Row(0.0, 1, 100, 1000, 1e-5)
    rows = [dense, replace(dense, ratio=0.75, error=float("nan")), replace(dense, ratio=0.85, block=4, error=0.1)]
    assert arm_emulated.shortfalls([dense]) == []
    assert arm_emulated.shortfalls(rows) == [
        "75%, blocks of 1: outputs on ARM differ by nan, at most 1e-03 is expected",
        "75%, blocks of 1: 1,000 instructions, dense 1,000",
        "85%, blocks of 4: outputs on ARM differ by 1.0e-01, at most 1e-03 is expected",
        "85%, blocks of 4: 1,000 instructions, dense 1,000",
    ]
    wrong = arm_operators.Difference("3x3", (7, 9), 1e-7, 0.5)
    assert arm_operators.shortfalls([replace(wrong, arm=1e-7)]) == []
    assert arm_operators.shortfalls([wrong]) == ["3x3 on 7x9: differs from Paddle by 1.0e-07 on x86, 5.0e-01 on ARM"]


def test_errors_are_relative_to_the_range_of_each_output():
    expected = {"small": np.array([0.0, 0.1]), "large": np.array([-50.0, 50.0])}
    found = {"small": np.array([0.0, 0.11]), "large": np.array([-50.0, 51.0])}
    assert arm_emulated.relative_error(found, expected) == pytest.approx(0.1)


def test_without_the_programs_that_it_needs_the_error_names_one(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PADDLE_SPARSE_CACHE", str(tmp_path / "cache"))
    with pytest.raises(PipelineError, match="apt-get is not on this machine"):
        arm_emulation.prepare(tmp_path)
