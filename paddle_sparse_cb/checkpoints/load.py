"""Loads the arrays of a checkpoint into a network and an optimizer, and says what does not fit."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from ..errors import InputError


def load_network(network: paddle.nn.Layer, arrays: dict[str, Any], file: Path) -> None:
    """Sets all parameters and buffers of a network.

    Raises:
        InputError: a name or a shape differs; the message names the first one.
    """
    own = network.state_dict()
    for name in [*own, *(name for name in arrays if name not in own)]:
        saved, current = (
            f"of shape {list(np.shape(state[name]))}" if name in state else "missing" for state in (arrays, own)
        )
        if saved != current:
            raise InputError(
                f"{file}: a checkpoint of another network: {name} is {saved} in the checkpoint and "
                f"{current} in this network"
            )
    network.set_state_dict(arrays)


def load_optimizer(model: paddle.Model, arrays: dict[str, Any], file: Path) -> None:
    """Sets moments, master weights and the learning rate schedule of a model's optimizer.

    Raises:
        InputError: they belong to another network, optimizer or schedule.
    """
    arrays = dict(arrays)
    names = {parameter.name for parameter in model.network.parameters()}
    for name in arrays:
        if name not in ("LR_Scheduler", "master_weights") and not any(name.startswith(f"{own}_") for own in names):
            raise InputError(
                f"{file}: a checkpoint of another optimizer: its {name} belongs to no parameter of this "
                "network; if it is the same network, build it first in the process, as when it was saved"
            )
    rate = model._optimizer._learning_rate
    has_schedule = isinstance(rate, paddle.optimizer.lr.LRScheduler)
    if has_schedule != ("LR_Scheduler" in arrays):
        raise InputError(
            f"{file}: a checkpoint of another optimizer: it has {'no' if has_schedule else 'a'} learning "
            f"rate schedule, this optimizer has {'one' if has_schedule else 'none'}"
        )
    try:
        missing = sorted(rate.state_dict().keys() - arrays["LR_Scheduler"].keys()) if has_schedule else []
        if missing:  # Paddle 3 only warns
            raise KeyError(f"its learning rate schedule lacks {', '.join(missing)}")
        masters = {name: paddle.to_tensor(array) for name, array in arrays.pop("master_weights", {}).items()}
        for name, master in masters.items():  # Paddle takes these as they are, and looks moments up by their names
            master.name = f"{name}_fp32_master_0"
        if masters:
            arrays["master_weights"] = masters
        state = {
            name: paddle.to_tensor(value) if isinstance(value, np.ndarray) else value for name, value in arrays.items()
        }
        with warnings.catch_warnings():  # Paddle warns of the schedule within its own LinearWarmup
            warnings.filterwarnings("ignore", "There are some unused values in state_dict")
            model._optimizer.set_state_dict(state)
    except (AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[-300:]
        raise InputError(f"{file}: this optimizer cannot load it: {reason}") from None
