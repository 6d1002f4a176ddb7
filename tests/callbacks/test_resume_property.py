"""Trainings drawn at random end bit for bit alike, interrupted or not; `tools/soak_resume.py` draws more of them."""

import os
import tempfile

import paddle
import pytest
from drawn_training import Training, differences, run, trainings
from hypothesis import HealthCheck, example, given, settings

from paddle_sparse_cb import find_checkpoint

settings.register_profile("drawn", max_examples=5, derandomize=True)
settings.register_profile("drawn-long", max_examples=200)
PROFILE = settings.get_profile("drawn-long" if "LONG_PROPERTY_TESTS" in os.environ else "drawn")


def check(training):
    with tempfile.TemporaryDirectory() as folder:
        assert differences(training, folder) == []


# What differed or was wrong before each of these was made to hold.
@example(Training(accumulate=2))  # within an accumulation
@example(Training(accumulate=3, interrupts=(4, 1), every_batches=2))  # the last batches of a resumed epoch
@example(Training(num_iters=12, interrupts=(7,)))
@example(Training(num_iters=10, interrupts=(7,), every_batches=None))  # ends with an epoch
@example(Training(num_iters=3, interrupts=(2,)))  # ends within the first epoch
@example(Training(num_iters=10, evaluates=True, interrupts=(6,)))  # hapi counts the batches of evaluations too
@example(Training(schedule="cosine", by_epoch=True, stepped_outside=True, interrupts=(11,)))
@example(Training(schedule="cosine", by_epoch=True, interrupts=(6,), every_batches=None))  # stepped after the save
@example(Training(schedule="restarts", interrupts=(6,)))  # Paddle saves a part of its state
@example(Training(sets_rate=True, optimizer="AdamW", ema=True, interrupts=(12,), every_batches=None))
@example(Training(distils=True, decays=True, amp=True, accumulate=2, interrupts=(4, 3)))
@given(trainings())
@pytest.mark.filterwarnings("ignore:The recursion limit")  # Paddle raises it at its first training
@settings(PROFILE, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@pytest.mark.slow
def test_a_drawn_training_that_is_interrupted_ends_bit_for_bit_as_the_uninterrupted_one(training):
    check(training)


@pytest.mark.slow
def test_a_drawn_training_with_a_data_worker_that_is_interrupted_ends_bit_for_bit_as_the_uninterrupted_one():
    check(Training(workers=1, evaluates=True, amp=True, optimizer="Adam", samples=17, interrupts=(6, 3)))


@pytest.mark.parametrize("outside", [False, True])
def test_a_schedule_by_epoch_is_stepped_once_an_epoch_whether_it_is_within_resumable_callbacks_or_not(
    tmp_path, outside
):
    training = Training(schedule="step", by_epoch=True, stepped_outside=outside)
    assert not run(training, tmp_path, interrupt=6)
    assert find_checkpoint(tmp_path).state.training["learning_rate"]["last_epoch"] == 1
    assert run(training, tmp_path)
    last = paddle.load(str(tmp_path / "final.pdopt"))["LR_Scheduler"]
    assert last == {"last_epoch": 3, "last_lr": 0.025}


def test_a_resumed_training_ends_after_num_iters_batches_in_all(tmp_path):
    training = Training(num_iters=13)
    assert not run(training, tmp_path, interrupt=7)
    assert run(training, tmp_path)
    assert find_checkpoint(tmp_path).state.step == 13
