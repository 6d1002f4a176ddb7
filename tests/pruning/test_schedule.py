import json
from dataclasses import asdict

import numpy as np
import pytest
from paddleslim import GMPUnstructuredPruner

from paddle_sparse_cb import GMPSchedule, InputError


def paddleslim_ratios(steps, **configs):
    """The ratio that PaddleSlim's own code holds after each step, without a network."""
    slim = GMPUnstructuredPruner.__new__(GMPUnstructuredPruner)
    slim.__dict__.update(configs, target_ratio=configs["ratio"], ratio=0.0, cur_iteration=0, _need_prune_once=False)
    slim._prepare_training_hyper_parameters()
    slim.update_threshold = slim._update_masks = lambda: None
    ratios = []
    for _ in range(steps):
        slim.step()
        ratios.append(slim.ratio)
    return ratios


@pytest.mark.parametrize("phases", [(0, 100, 100, 10), (200, 300, 400, 30), (0, 150, 0, 5)])
def test_with_whole_periods_the_ratios_equal_paddleslims_bit_for_bit(phases):
    stable, pruning, tunning, pruning_steps = phases
    settings = {
        "ratio": 0.75,
        "initial_ratio": 0.15,
        "stable_iterations": stable,
        "pruning_iterations": pruning,
        "tunning_iterations": tunning,
        "pruning_steps": pruning_steps,
    }
    schedule = GMPSchedule(**settings)
    steps = stable + pruning + tunning
    assert [schedule.at(step) for step in range(steps)] == paddleslim_ratios(steps, **settings)


def test_the_published_75_percent_schedule_has_these_ratios():
    schedule = GMPSchedule(ratio=0.75, initial_ratio=0.15, pruning_iterations=300, pruning_steps=300)
    assert [round(schedule.at(step), 6) for step in (0, 1, 50, 100, 150, 299, 300, 10**9)] == [
        0.15,
        0.15598,
        0.402778,
        0.572222,
        0.675,
        0.75,
        0.75,
        0.75,
    ]


@pytest.mark.parametrize(
    ("curve", "ratios"),
    [
        ("linear", [0.0, 0.15, 0.3, 0.45, 0.6, 0.75]),
        ("constant", [0.0, 0.75, 0.75, 0.75, 0.75, 0.75]),
        ("cosine", [0.0, 0.15, 0.237868, 0.45, 0.662132, 0.75]),
        ("cubic", [0.0, 0.15, 0.496875, 0.675, 0.740625, 0.75]),
    ],
)
def test_each_curve_has_these_ratios(curve, ratios):
    schedule = GMPSchedule(
        ratio=0.75, initial_ratio=0.15, stable_iterations=1, pruning_iterations=4, pruning_steps=4, curve=curve
    )
    assert [round(schedule.at(step), 6) for step in range(6)] == ratios


def test_a_layer_with_a_target_of_its_own_follows_the_same_curve_to_it():
    schedule = GMPSchedule(
        ratio=0.75, initial_ratio=0.15, stable_iterations=1, pruning_iterations=4, tunning_iterations=2, pruning_steps=4
    )
    golden = {
        0.9: [0.0, 0.15, 0.583594, 0.80625, 0.888281, 0.9, 0.9],
        0.75: [0.0, 0.15, 0.496875, 0.675, 0.740625, 0.75, 0.75],
        0.6: [0.0, 0.15, 0.410156, 0.54375, 0.592969, 0.6, 0.6],
        0.1: [0.0, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1],  # below the initial ratio: the target at once
    }
    for target, ratios in golden.items():
        own = schedule.with_target(target)
        assert [round(own.at(step), 6) for step in range(7)] == ratios
        assert own.at(5) == target
    assert schedule.with_target(0.75) == schedule


def test_the_stable_phase_is_kept_where_paddleslim_drops_it():
    settings = {
        "ratio": 0.75,
        "initial_ratio": 0.15,
        "stable_iterations": 50,
        "pruning_iterations": 400,
        "tunning_iterations": 400,
        "pruning_steps": 4,
    }
    assert paddleslim_ratios(1, **settings)[0] == 0.15  # the defect: 50 stable steps of a period of 100 vanish
    schedule = GMPSchedule(**settings)
    assert [schedule.at(step) for step in (0, 49, 50)] == [0.0, 0.0, 0.15]


def test_the_target_is_reached_without_a_tunning_phase():
    schedule = GMPSchedule(ratio=0.75, initial_ratio=0.15, pruning_iterations=100, pruning_steps=4)
    assert schedule.target_step == 100
    assert schedule.at(99) < 0.75
    assert schedule.at(100) == 0.75


@pytest.mark.parametrize("pruning", [0, 1, 7, 299, 301])
@pytest.mark.parametrize("pruning_steps", [1, 3, 300])
def test_ratios_never_fall_and_end_at_the_target(pruning, pruning_steps):
    schedule = GMPSchedule(
        ratio=0.85, initial_ratio=0.2, stable_iterations=3, pruning_iterations=pruning, pruning_steps=pruning_steps
    )
    ratios = [schedule.at(step) for step in range(schedule.target_step + 2)]
    assert ratios == sorted(ratios)
    assert ratios[:3] == [0.0] * 3
    assert len(set(ratios[3 : schedule.target_step])) == min(pruning, pruning_steps)
    assert ratios[schedule.target_step] == 0.85


def test_numbers_of_numpy_become_pythons_own():
    schedule = GMPSchedule(
        ratio=np.float32(0.7), initial_ratio=np.float16(0.1), pruning_iterations=np.int64(10), pruning_steps=np.int32(5)
    )
    assert schedule == GMPSchedule(ratio=0.7, initial_ratio=0.1, pruning_iterations=10, pruning_steps=5)
    assert json.loads(json.dumps(asdict(schedule))) == asdict(schedule)


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("ratio", 75, "ratio must be a fraction from 0.0 to below 1, got 75 (did you mean 0.75?)"),
        ("ratio", 1.0, "ratio"),
        ("ratio", -0.1, "ratio"),
        ("ratio", "0.75", "ratio"),
        ("ratio", True, "ratio"),
        ("ratio", float("nan"), "ratio"),
        ("initial_ratio", 0.9, "initial_ratio must be at most ratio (0.75), got 0.9"),
        ("pruning_steps", 0, "pruning_steps must be a whole number of at least 1, got 0"),
        (
            "curve",
            "cubical",
            "curve must be one of cubic, linear, cosine, constant, got 'cubical'; did you mean 'cubic'?",
        ),
        ("stable_iterations", -1, "stable_iterations"),
        ("pruning_iterations", 1.5, "pruning_iterations"),
    ],
)
def test_a_value_out_of_range_is_an_error_of_one_line_that_names_the_argument(argument, value, message):
    with pytest.raises(InputError) as error:
        GMPSchedule(**{"pruning_iterations": 10, argument: value})
    assert message in str(error.value)
    assert "\n" not in str(error.value)
