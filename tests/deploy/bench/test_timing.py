"""Latencies from recorded times, and the turns of the cases."""

import time

import pytest

from paddle_sparse_cb.deploy.bench.timing import Block, Case, is_disturbed, measure, run_block, summarize


def block(*ms, cpu=None, waited=0.0):
    seconds = tuple(one / 1e3 for one in ms)
    return Block(seconds, sum(seconds) if cpu is None else cpu / 1e3, None if waited is None else waited / 1e3)


# Recorded: PicoDet-s on MNN, on two cores: with priority over all other work, among seven other processes, and with
# one preemption.
IDLE = block(8.37, 8.34, 8.23, 8.2, 8.14, cpu=41.29, waited=0.0)
BUSY = block(13.42, 15.28, 16.65, 20.28, 16.48, cpu=42.61, waited=39.5)
PREEMPTED = block(8.4, 8.46, 8.57, 8.66, 17.46, cpu=42.86, waited=8.68)


@pytest.mark.parametrize(
    ("recorded", "threads", "disturbed"),
    [
        (IDLE, 1, False),
        (BUSY, 1, True),
        (PREEMPTED, 1, True),
        (block(10, 10, cpu=17.9), 1, True),  # the host gave the CPU to another machine: no queue, but no CPU time
        (block(10, 10, cpu=17.9, waited=None), 1, True),
        (block(10, 10, cpu=18.1, waited=None), 1, False),
        (block(10, 10, waited=1.1), 1, True),
        (block(10, 10, waited=0.9), 1, False),
        (block(10, 10, cpu=31), 2, False),
        (block(10, 10, cpu=12), 2, False),  # threads wait for one another
        (block(10, 10, cpu=31, waited=2.1), 2, True),
        (block(10, 10, cpu=31, waited=1.9), 2, False),
        (block(10, 10, cpu=12, waited=None), 2, False),
    ],
)
def test_a_block_that_lacked_a_cpu_is_disturbed(recorded, threads, disturbed):
    assert is_disturbed(recorded, threads) == disturbed


def test_the_latency_is_the_median_of_the_undisturbed_runs():
    timing = summarize([BUSY, *[IDLE] * 5, PREEMPTED], 1)
    assert timing.ms == pytest.approx(8.23)
    assert timing.spread == pytest.approx((8.34 - 8.2) / 8.23)
    assert timing.runs == 25
    assert not timing.disturbed


def test_with_too_few_undisturbed_blocks_all_count_and_the_latency_is_marked():
    timing = summarize([IDLE, *[BUSY] * 4, IDLE], 1)
    assert timing.disturbed
    assert timing.runs == 30


def test_a_large_spread_is_marked_even_if_no_block_lacked_a_cpu():
    """As on a machine whose clock rises and falls."""
    assert not summarize([block(10, 10, 10, 11)] * 5, 1).disturbed
    timing = summarize([block(10, 10, 14, 14)] * 5, 1)
    assert timing.spread == pytest.approx(4 / 12)
    assert timing.disturbed


class Recorded:
    """Answers with recorded blocks, and remembers who asked."""

    def __init__(self, *recorded):
        self.recorded = {number: iter(blocks) for number, blocks in enumerate(recorded)}
        self.order = []

    def cases(self):
        return [Case(lambda: time.sleep(0.001), threads=1) for _ in self.recorded]

    def measure(self, cases, seconds=0.0):
        numbers = {id(case): number for number, case in enumerate(cases)}

        def measure_block(case, runs):
            self.order.append(numbers[id(case)])
            return next(self.recorded[numbers[id(case)]])

        return measure(cases, seconds, measure_block=measure_block)


def test_cases_take_turns_and_each_begins_a_round():
    recorded = Recorded([IDLE] * 5, [IDLE] * 5, [IDLE] * 5)
    timings = recorded.measure(recorded.cases())
    assert recorded.order == [0, 1, 2, 1, 2, 0, 2, 0, 1, 0, 1, 2, 1, 2, 0]
    assert {timing.runs for timing in timings} == {25}


def test_only_disturbed_blocks_are_measured_again():
    recorded = Recorded([IDLE] * 5, [IDLE, BUSY, BUSY, IDLE, IDLE, IDLE, BUSY, IDLE])
    steady, disturbed = recorded.measure(recorded.cases())
    assert recorded.order.count(0) == 5
    assert recorded.order.count(1) == 8
    assert not steady.disturbed
    assert not disturbed.disturbed
    assert disturbed.ms == pytest.approx(8.23)


def test_disturbed_blocks_are_not_measured_again_forever():
    recorded = Recorded([BUSY] * 1000)
    [timing] = recorded.measure(recorded.cases())
    assert timing.disturbed
    assert len(recorded.order) == 10


def test_the_time_to_spend_decides_the_number_of_rounds():
    recorded = Recorded([IDLE] * 1000)
    recorded.measure(recorded.cases(), seconds=1000.0)
    assert len(recorded.order) == 60


def test_a_case_without_cpu_time_is_marked():
    """A real measurement: sleeping takes wall time and no CPU time."""
    [timing] = measure([Case(lambda: time.sleep(0.01))], 0.05)
    assert timing.ms >= 10
    assert timing.disturbed


def test_a_block_has_the_times_of_its_runs():
    calls = []
    recorded = run_block(Case(lambda: calls.append(time.sleep(0.002))), 4)
    assert len(recorded.seconds) == 4
    assert len(calls) == 5  # the first one fills the caches
    assert min(recorded.seconds) >= 0.002
    assert recorded.cpu < sum(recorded.seconds)
