"""`PrunerState`: what a pruner knows beside the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class PrunerState:
    """What a pruner knows beside the weights, as plain values and arrays.

    Attributes:
        step: completed optimizer steps.
        settings: what a resumed run must have in common with the run that was saved: schedule, plan, scope, block.
        masks: structured name to a bool array of the weight's shape, True where a weight is kept. A weight without a
            mask has not been pruned yet.
    """

    step: int
    settings: dict[str, Any]
    masks: Mapping[str, np.ndarray]
