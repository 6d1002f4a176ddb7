"""The monkeypatch of hapi that the callbacks need.

hapi (2.6.2 and 3.3.1) tells its callbacks nothing when `fit` ends by an exception, Ctrl-C among them. Without this
patch a pruner would stay attached to the optimizer and prune the next training too.

hapi also keeps one `logs` dict per process, the default argument of `Model._run_one_epoch`. Without this patch a
callback that monitors a metric of another model would be given its last value.
"""

from __future__ import annotations

import functools
import inspect
import warnings
import weakref
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import paddle

_SESSION = "_sparse_session"
# Networks that a finished `fit` has pruned, and their ratios.
_PRUNED: weakref.WeakKeyDictionary[paddle.nn.Layer, float] = weakref.WeakKeyDictionary()


class Session(Protocol):
    """What this module knows of a `FitSession`."""

    pruner: Any
    is_finished: bool

    def close(self) -> None:
        """Releases the optimizer and the model."""


def current_session(model: Any) -> Any:
    """Returns the session of the `fit` that runs on a model, if one does."""
    return vars(model).get(_SESSION) if model is not None else None


def install_sessions(open_session: Callable[[paddle.Model], Session]) -> None:
    """Has `paddle.Model.fit` open a session and close it however it ends; does nothing the second time.

    Args:
        open_session: creates the session of a model.
    """
    original = paddle.Model.fit
    if hasattr(original, _SESSION):
        return
    signature = inspect.signature(original)

    @functools.wraps(original)
    def fit(model: paddle.Model, *args: Any, **kwargs: Any) -> Any:
        _warn_if_zeros_will_be_lost(model, signature.bind_partial(model, *args, **kwargs).arguments.get("callbacks"))
        _clear_logs()
        outer, session = current_session(model), open_session(model)
        setattr(model, _SESSION, session)
        try:
            return original(model, *args, **kwargs)
        finally:
            try:
                session.close()
            finally:
                setattr(model, _SESSION, outer)
            if session.pruner is not None and session.is_finished:
                _PRUNED[model.network] = session.pruner.ratio

    setattr(fit, _SESSION, True)
    paddle.Model.fit = fit


def _clear_logs() -> None:
    """Removes the metrics of earlier trainings from the dict that hapi gives to all callbacks."""
    for default in paddle.Model._run_one_epoch.__defaults__ or ():
        if isinstance(default, dict):
            default.clear()


def _warn_if_zeros_will_be_lost(model: paddle.Model, callbacks: Any) -> None:
    """Warns once when a pruned network is trained again and nothing keeps its zeros."""
    given = callbacks if isinstance(callbacks, (list, tuple)) else [callbacks]
    ratio = _PRUNED.pop(model.network, None)
    if ratio and not _prunes(given) and "step" not in vars(model._optimizer or object):
        warnings.warn(
            f"this network was pruned to {ratio:.2%} by an earlier fit, and this fit has no SparsityCallback: pruned "
            f"weights will become non-zero. To keep them zero, add SparsityCallback(ratio={ratio:g}, "
            "curve='constant', pruning_epochs=0), or attach a GMPPruner, which keeps present zeros",
            stacklevel=3,
        )


def _prunes(callbacks: Iterable[Any]) -> bool:
    return any(getattr(one, "prunes", False) or _prunes(getattr(one, "callbacks", ())) for one in callbacks)
