#!/usr/bin/env python3
"""Draws small trainings at random, interrupts them at random, resumes them, and compares the bits of their results.

    make soak

Each training is drawn as in `tests/callbacks/test_resume_property.py`: optimizer, learning rate schedule, gradient
accumulation, `num_iters`, averages, AMP, evaluations, order of the callbacks, data worker, shuffling. It is trained
without an interruption and with up to three. Prints each difference, and the number of trainings and of differences.
Exit code 1 if there are differences.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time

from drawn_training import differences, trainings
from hypothesis import HealthCheck, Phase, given, seed, settings


def main() -> int:
    """Draws the trainings; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trainings", type=int, default=200)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    arguments = parser.parse_args()
    drawn, differing = 0, 0

    @seed(arguments.seed)
    @settings(
        max_examples=arguments.trainings,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(trainings(workers=(0, 0, 0, 0, 1)))
    def compare(training):
        nonlocal drawn, differing
        drawn += 1
        with tempfile.TemporaryDirectory() as folder:
            found = differences(training, folder)
        if found:
            differing += 1
            print(f"{training}:\n  " + "\n  ".join(found), flush=True)
        if drawn % 20 == 0:
            print(f"trainings drawn {drawn}, differences {differing} ...", flush=True)

    compare()
    print(f"trainings drawn {drawn}, differences {differing} (seed {arguments.seed})")
    return int(bool(differing))


if __name__ == "__main__":
    sys.exit(main())
