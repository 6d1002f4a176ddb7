"""What identifies a training: a resumed run that differs in it cannot end as the uninterrupted one."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Mapping
from typing import Any

import paddle

from .._version import __version__
from ..errors import InputError
from ..utils.validation import check_same

# Attributes of schedules that change with each step, and such that do not influence it.
_MOVING = {"last_epoch", "last_lr", "T_cur", "T_i", "verbose", "keys", "_var_name"}
_WITHOUT_EFFECT = {"name", "type", "dtype", "learning_rate"}  # the learning rate is compared on its own


def describe_training(model: paddle.Model, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Returns optimizer, learning rate, data, accumulation and precision of a training that has not begun, plainly.

    Args:
        model: a prepared model, as it was built: before a checkpoint is loaded into it.
        arguments: the arguments of `fit`.
    """
    optimizer = model._optimizer
    precision = {"level": getattr(model._adapter, "_amp_level", "O0"), **getattr(model._adapter, "_amp_configs", {})}
    return {
        "optimizer": _describe_optimizer(optimizer) if optimizer is not None else None,
        "learning_rate": _describe_rate(getattr(optimizer, "_learning_rate", None)),
        "accumulate_grad_batches": getattr(model, "_accumulate", 1),
        "num_iters": _plain(arguments.get("num_iters")),
        "amp": {key: _plain(value) for key, value in precision.items() if _is_plain(value)},
        "data": _describe_data(arguments.get("train_data"), arguments),
    }


def check_identity(saved: Mapping[str, Any], current: Mapping[str, Any], where: str, allow_change: bool) -> None:
    """Compares the identities of two trainings where both say something.

    Args:
        saved: the identity in the checkpoint.
        current: the identity of this run.
        where: the checkpoint's file, for the message.
        allow_change: warn about the difference instead.

    Raises:
        InputError: they differ; the message names the first difference and both values.
    """
    try:
        check_same(*_in_both(saved, current), where)
    except InputError as error:
        if not allow_change:
            raise
        warnings.warn(f"{error}; the resumed training will differ", stacklevel=2)


def warn_of_other_versions(versions: Mapping[str, Any], where: str) -> None:
    """Warns if another version of Paddle or of this package wrote a checkpoint: equal bits are not promised then."""
    for name, current in {"paddle": paddle.__version__, "paddle_sparse_cb": __version__}.items():
        if versions.get(name, current) != current:
            warnings.warn(
                f"{where}: written with {name} {versions[name]}, and this is {current}: the resumed training may "
                "differ in its last bits",
                stacklevel=2,
            )


def rate_state(optimizer: Any) -> Any:
    """Returns what a learning rate is at this moment: the number, or all plain values of its schedule.

    Paddle saves no number in `.pdopt`, and of a schedule only what it declares: not `T_cur` of
    `CosineAnnealingWarmRestarts`.
    """
    rate = getattr(optimizer, "_learning_rate", None)
    return _plain_values(rate) if isinstance(rate, paddle.optimizer.lr.LRScheduler) else rate


def restore_rate(optimizer: Any, state: Any) -> None:
    """Sets what `rate_state` returned."""
    rate = getattr(optimizer, "_learning_rate", None)
    if isinstance(rate, paddle.optimizer.lr.LRScheduler) and isinstance(state, Mapping):
        _restore_values(rate, state)
    elif isinstance(rate, float) and isinstance(state, (int, float)):
        optimizer.set_lr(float(state))


def _restore_values(schedule: Any, state: Mapping[str, Any]) -> None:
    for name, value in state.items():
        own = getattr(schedule, name, None)
        if isinstance(own, paddle.optimizer.lr.LRScheduler) and isinstance(value, Mapping):
            _restore_values(own, value)
        elif name in vars(schedule) and not isinstance(value, Mapping):
            setattr(schedule, name, tuple(value) if isinstance(own, tuple) else value)


def _plain_values(schedule: Any) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in vars(schedule).items():
        if isinstance(value, paddle.optimizer.lr.LRScheduler):
            values[name] = _plain_values(value)
        elif name not in ("verbose", "keys", "_var_name") and _is_plain(value) and _plain(value) == _as_list(value):
            values[name] = _as_list(value)  # infinities, which JSON has not, are limits that do not change
    return values


def _describe_rate(rate: Any) -> Any:
    if not isinstance(rate, paddle.optimizer.lr.LRScheduler):
        return _plain(rate)
    rate.state_keys()
    moving = _MOVING | set(rate.keys)
    return {
        "type": type(rate).__name__,
        **{
            name: _describe_rate(value) if isinstance(value, paddle.optimizer.lr.LRScheduler) else _plain(value)
            for name, value in vars(rate).items()
            if name not in moving and (_is_plain(value) or isinstance(value, paddle.optimizer.lr.LRScheduler))
        },
    }


def _describe_optimizer(optimizer: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"type": type(optimizer).__name__}
    for key, value in vars(optimizer).items():
        name = key.lstrip("_")
        if name in _WITHOUT_EFFECT:
            continue
        if _is_plain(value) and not _has_names(value):  # of tensors that exist once a step was made
            found[name] = _plain(value)
        elif isinstance(value, (paddle.nn.clip.ClipGradBase, paddle.regularizer.WeightDecayRegularizer)):
            own = {key.lstrip("_"): _plain(one) for key, one in vars(value).items() if _is_plain(one)}
            found[name] = {"type": type(value).__name__, **own}
    return found


def _describe_data(given: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    loader = getattr(given, "loader", given)  # of a `SkipBatchesLoader`
    if isinstance(loader, paddle.io.Dataset):
        batch_size = arguments.get("batch_size", 1)
        return {
            **_describe_dataset(loader),
            "batch_size": batch_size[0] if isinstance(batch_size, (list, tuple)) else batch_size,
            "drop_last": bool(arguments.get("drop_last", False)),
            "shuffle": bool(arguments.get("shuffle", True)),
        }
    sampler = getattr(loader, "batch_sampler", None)
    order = getattr(sampler, "sampler", None)
    described = {
        **_describe_dataset(getattr(loader, "dataset", None)),
        "batch_size": getattr(sampler, "batch_size", getattr(loader, "batch_size", None)),
        "drop_last": getattr(sampler, "drop_last", None),
        "shuffle": getattr(sampler, "shuffle", None),
        "order": type(order).__name__ if order is not None else None,
        "seed": getattr(given, "seed", None),
    }
    return {key: value for key, value in described.items() if value is not None and _is_plain(value)}


def _describe_dataset(dataset: Any) -> dict[str, Any]:
    """Returns the number of samples and, if the data set has this attribute, the `digest` of its content."""
    digest = getattr(dataset, "digest", None)
    described: dict[str, Any] = {"digest": digest} if isinstance(digest, str) else {}
    with contextlib.suppress(TypeError, RuntimeError, NotImplementedError):  # no map-style data set
        described["samples"] = len(dataset)
    return described


def _has_names(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and not (value and all(isinstance(one, (int, float)) for one in value))


def _as_list(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(isinstance(one, (bool, int, float, str)) for one in value)
    return value is None or isinstance(value, (bool, int, float, str))


def _plain(value: Any) -> Any:
    """Returns a value as JSON keeps it."""
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _in_both(saved: Any, current: Any) -> tuple[Any, Any]:
    """Leaves out what only one of two versions of Paddle describes; a difference in kind is kept."""
    if not isinstance(saved, Mapping) or not isinstance(current, Mapping):
        return saved, current
    both = {key: _in_both(saved[key], current[key]) for key in current if key in saved}
    return {key: one for key, (one, _) in both.items()}, {key: other for key, (_, other) in both.items()}
