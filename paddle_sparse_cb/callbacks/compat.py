"""The monkeypatch of hapi that the callbacks need.

hapi (2.6.2 and 3.3.1) tells its callbacks nothing when `fit` ends by an exception, Ctrl-C among them. Without this
patch a pruner would stay attached to the optimizer and prune the next training too.

hapi steps a learning rate schedule by itself at each batch unless it sees an `LRScheduler` in the list it is given: one
within a `ResumableCallbacks` is shown to it here. And it has no event after all callbacks have ended an epoch, when
the learning rate is that of the next epoch, which a checkpoint must have.

Its progress bar is the first of its callbacks, so that values of others would reach it one batch late, and it prints
NaN for what was not measured: `bar.py` replaces it.

hapi also keeps one `logs` dict per process, the default argument of `Model._run_one_epoch`. Without this patch a
callback that monitors a metric of another model would be given its last value.
"""

from __future__ import annotations

import functools
import inspect
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

import paddle

from .bar import CompleteLogs, MeasuredBar

_SESSION = "_sparse_session"
# Networks that a finished `fit` has pruned: the ratio of all layers together, and the lowest one of a layer.
_PRUNED: weakref.WeakKeyDictionary[paddle.nn.Layer, tuple[float, float]] = weakref.WeakKeyDictionary()


class Session(Protocol):
    """What this module knows of a `FitSession`."""

    pruner: Any
    is_finished: bool

    @property
    def has_members(self) -> bool:
        """Whether a callback of this package takes part."""

    def log_values(self) -> Mapping[str, float]:
        """Returns what callbacks add to the logs of a training batch."""

    def end_epoch(self) -> None:
        """Called when all callbacks have ended an epoch."""

    def close(self) -> None:
        """Releases the optimizer and the model."""


def current_session(model: Any) -> Any:
    """Returns the session of the `fit` that runs on a model, if one does."""
    return vars(model).get(_SESSION) if model is not None else None


class _AfterOthers(paddle.callbacks.Callback):
    """Tells a session that all callbacks have ended an epoch; the last in hapi's list."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.session.end_epoch()


def install_sessions(open_session: Callable[[paddle.Model, Mapping[str, Any]], Session]) -> None:
    """Has `paddle.Model.fit` open a session and close it however it ends; does nothing the second time.

    Args:
        open_session: creates the session of a model and of the arguments of `fit`.
    """
    original = paddle.Model.fit
    if hasattr(original, _SESSION):
        return
    signature = inspect.signature(original)
    default = {name: parameter.default for name, parameter in signature.parameters.items()}

    @functools.wraps(original)
    def fit(model: paddle.Model, *args: Any, **kwargs: Any) -> Any:
        bound = signature.bind_partial(model, *args, **kwargs)
        given = bound.arguments.get("callbacks") or []
        given = list(given) if isinstance(given, (list, tuple)) else [given]
        _warn_if_zeros_will_be_lost(model, given)
        _clear_logs()
        bound.arguments["callbacks"] = given
        outer, session = current_session(model), open_session(model, dict(bound.arguments))
        is_stepped = any(isinstance(one, paddle.callbacks.LRScheduler) for one in nested_callbacks(given))
        if is_stepped and not any(isinstance(one, paddle.callbacks.LRScheduler) for one in given):
            given.append(paddle.callbacks.LRScheduler(by_step=False, by_epoch=False))
        verbose, log_freq = (bound.arguments.get(name, default[name]) for name in ("verbose", "log_freq"))
        if verbose and not any(isinstance(one, paddle.callbacks.ProgBarLogger) for one in given):
            given.insert(0, MeasuredBar(session, log_freq, verbose))
        given.insert(0, CompleteLogs(session))
        given.append(_AfterOthers(session))
        setattr(model, _SESSION, session)
        try:
            return original(*bound.args, **bound.kwargs)
        finally:
            try:
                session.close()
            finally:
                setattr(model, _SESSION, outer)
            if session.pruner is not None and session.is_finished:
                pruner = session.pruner
                _PRUNED[model.network] = pruner.overall_ratio, min([pruner.ratio, *pruner.own_ratios.values()])

    setattr(fit, _SESSION, True)
    paddle.Model.fit = fit


def _clear_logs() -> None:
    """Removes the metrics of earlier trainings from the dict that hapi gives to all callbacks."""
    for default in paddle.Model._run_one_epoch.__defaults__ or ():
        if isinstance(default, dict):
            default.clear()


def nested_callbacks(callbacks: Iterable[Any]) -> Iterator[Any]:
    """Yields callbacks and those that they contain, as `ResumableCallbacks` does."""
    for one in callbacks:
        yield one
        yield from nested_callbacks(getattr(one, "callbacks", ()))


def _warn_if_zeros_will_be_lost(model: paddle.Model, given: list[Any]) -> None:
    """Warns once when a pruned network is trained again and nothing keeps its zeros."""
    ratio, lowest = _PRUNED.pop(model.network, (0.0, 0.0))
    if ratio and not _prunes(given) and "step" not in vars(model._optimizer or object):
        warnings.warn(
            f"this network was pruned to {ratio:.2%} by an earlier fit, and this fit has no SparsityCallback: pruned "
            f"weights will become non-zero. To keep them zero, add SparsityCallback(ratio={lowest:g}, "
            "curve='constant', pruning_epochs=0), or attach a GMPPruner, which keeps present zeros",
            stacklevel=3,
        )


def _prunes(callbacks: Iterable[Any]) -> bool:
    return any(getattr(one, "prunes", False) for one in nested_callbacks(callbacks))
