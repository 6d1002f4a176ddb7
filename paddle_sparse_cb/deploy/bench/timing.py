"""Measures latencies of several cases in one run, so that all of them see the same machine.

The cases take turns in short blocks, round after round. A block that was disturbed by other work on the machine is not
counted and measured again, up to a limit. What remains is summarized by its median, because delays have one sign.
"""

from __future__ import annotations

import contextlib
import gc
import math
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

import numpy as np

MAX_SPREAD = 0.15  # interquartile range over median of a row that counts as undisturbed
_LEAST_CPU = 0.9  # CPU time over wall time of an undisturbed block on one thread
_MOST_WAITING = 0.05  # time in the queue of the scheduler, over wall time and threads
_BLOCK_SECONDS = 0.04
_WARM_UP_SECONDS = 0.15
_MIN_RUNS = 3  # per block and for the warm-up
_ROUNDS = (5, 60)  # least and most
_SETTLE_SECONDS = 0.3  # most that is waited for until the threads of the previous case sleep
_TASKS = Path("/proc/self/task")


@dataclass(frozen=True)
class Case:
    """Something to measure.

    Attributes:
        run: runs it once.
        threads: the number of threads that it computes on.
    """

    run: Callable[[], object]
    threads: int = 1


@dataclass(frozen=True)
class Block:
    """Several runs of one case without a break.

    Attributes:
        seconds: wall time of each run.
        cpu: CPU time of the process during the block, in seconds.
        waited: time that its threads were ready and had no CPU, in seconds; None if the system does not tell.
    """

    seconds: tuple[float, ...]
    cpu: float
    waited: float | None = None


@dataclass(frozen=True)
class Timing:
    """The latency of a case.

    Attributes:
        ms: median in milliseconds.
        spread: interquartile range divided by the median.
        runs: number of runs that were counted.
        disturbed: whether other work on the machine may have influenced the figures.
    """

    ms: float
    spread: float
    runs: int
    disturbed: bool


def is_disturbed(block: Block, threads: int) -> bool:
    """Returns whether other work took the CPU away during a block.

    On one thread the CPU time of an undisturbed block is its wall time; it is less if another process or another
    machine on the same host had the CPU. On several threads, which wait for one another, only the time in the queue of
    the scheduler tells.
    """
    wall = sum(block.seconds)
    if threads == 1 and block.cpu < _LEAST_CPU * wall:
        return True
    return block.waited is not None and block.waited > _MOST_WAITING * wall * threads


def summarize(blocks: Sequence[Block], threads: int) -> Timing:
    """Summarizes the blocks of a case: the undisturbed ones, or all of them if there are too few of those.

    Args:
        blocks: at least one block with at least one run.
        threads: the number of threads of the case.
    """
    clean = [block for block in blocks if not is_disturbed(block, threads)]
    enough = len(clean) >= min(_ROUNDS[0], len(blocks))
    seconds = np.array([one for block in (clean if enough else blocks) for one in block.seconds])
    low, median, high = np.percentile(seconds, (25, 50, 75))
    spread = float((high - low) / median)
    return Timing(float(median) * 1e3, spread, len(seconds), not enough or spread > MAX_SPREAD)


@dataclass
class _Turn:
    """A case with the number of runs in its blocks, and the blocks so far."""

    case: Case
    runs: int
    blocks: list[Block] = field(default_factory=list)

    @property
    def clean(self) -> int:
        return sum(not is_disturbed(block, self.case.threads) for block in self.blocks)


def run_block(case: Case, runs: int) -> Block:
    """Runs a case several times, after one run that fills the caches and is not counted."""
    _settle()
    case.run()
    seconds = []
    waited, cpu = _waited(), time.process_time()
    for _ in range(runs):
        start = time.perf_counter()
        case.run()
        seconds.append(time.perf_counter() - start)
    cpu = time.process_time() - cpu
    after = _waited()
    return Block(tuple(seconds), cpu, None if waited is None or after is None else after - waited)


def measure(
    cases: Sequence[Case],
    seconds: float,
    *,
    measure_block: Callable[[Case, int], Block] = run_block,
    on_round: Callable[[int, int], None] = lambda done, rounds: None,
) -> list[Timing]:
    """Measures cases in turns.

    Args:
        cases: the cases.
        seconds: wall time to spend on all of them together; disturbed blocks may take as much again. The warm-up and
            the least number of rounds may take longer.
        measure_block: measures a case a number of times.
        on_round: called after each round with the number of rounds done and planned.

    Returns:
        The latency of each case.
    """
    turns = [_Turn(case, max(_MIN_RUNS, math.ceil(_BLOCK_SECONDS / _warm_up(case)))) for case in cases]
    with _garbage_collection_paused():
        start = time.perf_counter()
        _round(turns, 0, measure_block)
        needed = time.perf_counter() - start
        rounds = min(max(int(seconds / max(needed, 1e-9)), _ROUNDS[0]), _ROUNDS[1])
        on_round(1, rounds)
        for number in range(1, rounds):
            _round(turns, number, measure_block)
            on_round(number + 1, rounds)
        for number in range(rounds):
            again = [turn for turn in turns if turn.clean < rounds]
            if not again:
                break
            _round(again, number, measure_block)
    return [summarize(turn.blocks, turn.case.threads) for turn in turns]


def _round(turns: Sequence[_Turn], number: int, measure_block: Callable[[Case, int], Block]) -> None:
    first = number % len(turns)  # so that no case always follows the same one
    for turn in (*turns[first:], *turns[:first]):
        turn.blocks.append(measure_block(turn.case, turn.runs))


def _warm_up(case: Case) -> float:
    """Runs a case until the runtime has allocated and chosen everything; returns the median of the last seconds."""
    seconds: list[float] = []
    start = time.perf_counter()
    while len(seconds) < _MIN_RUNS or time.perf_counter() - start < _WARM_UP_SECONDS:
        before = time.perf_counter()
        case.run()
        seconds.append(time.perf_counter() - before)
    return max(statistics.median(seconds[len(seconds) // 2 :]), 1e-9)


def _settle() -> None:
    """Waits until the threads of the previous case sleep: the pools of some runtimes spin for a while after a run."""
    end = time.perf_counter() + _SETTLE_SECONDS
    while time.perf_counter() < end:
        cpu, start = time.process_time(), time.perf_counter()
        time.sleep(0.001)
        if time.process_time() - cpu < 0.3 * (time.perf_counter() - start):
            return


def _waited() -> float | None:
    """Seconds that the threads of this process have been ready to run and had no CPU; None if Linux does not tell."""
    try:
        return sum(int((task / "schedstat").read_text().split()[1]) for task in _TASKS.iterdir()) * 1e-9
    except (OSError, IndexError, ValueError):  # another system, a kernel without statistics, a thread that has ended
        return None


@contextlib.contextmanager
def _garbage_collection_paused() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
