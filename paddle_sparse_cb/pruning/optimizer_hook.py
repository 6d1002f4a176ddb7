"""Calls listeners right after each completed step of an optimizer, before any other code can see the weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import paddle

_METHODS = ("step", "minimize")
_MARK = "_sparse_hook"


class OptimizerHook:
    """Wraps an optimizer's `step` and `minimize` and counts its completed steps.

    A step is one of the optimizer, not of the data loader: micro-batches of a gradient accumulation do not count, and
    neither does a step that AMP's scaler skipped because of an overflow.

    Attributes:
        steps: completed steps since the hook was attached.
    """

    def __init__(self, optimizer: paddle.optimizer.Optimizer) -> None:
        self.steps = 0
        self._optimizer = optimizer
        self._listeners: list[Callable[[], None]] = []
        self._depth = 0
        for name in _METHODS:
            setattr(optimizer, name, self._wrapped(getattr(optimizer, name)))

    @staticmethod
    def attached_to(optimizer: paddle.optimizer.Optimizer) -> OptimizerHook | None:
        """Returns the hook of an optimizer, if it has one."""
        return getattr(vars(optimizer).get("step"), _MARK, None)

    @classmethod
    def of(cls, optimizer: paddle.optimizer.Optimizer) -> OptimizerHook:
        """Returns the hook of an optimizer, and attaches one if there is none."""
        return cls.attached_to(optimizer) or cls(optimizer)

    @property
    def listeners(self) -> tuple[Callable[[], None], ...]:
        """The listeners in the order in which they are called."""
        return tuple(self._listeners)

    def add(self, listener: Callable[[], None], first: bool = False) -> None:
        """Calls `listener` after each completed step, before or after the other listeners."""
        self._listeners.insert(0 if first else len(self._listeners), listener)

    def remove(self, listener: Callable[[], None]) -> None:
        """Removes a listener; with the last one, the optimizer gets its own methods back."""
        if listener in self._listeners:
            self._listeners.remove(listener)
        if not self._listeners:
            for name in _METHODS:
                if getattr(vars(self._optimizer).get(name), _MARK, None) is self:
                    delattr(self._optimizer, name)

    def _wrapped(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self._depth += 1
            try:
                result = original(*args, **kwargs)
            finally:
                self._depth -= 1
            # `minimize` calls `step` in some optimizers; only the outer call counts.
            if self._depth == 0 and not _was_skipped(self._optimizer):
                self.steps += 1
                for listener in self.listeners:
                    listener()
            return result

        setattr(wrapped, _MARK, self)
        return wrapped


def optimizer_tensors(
    optimizer: paddle.optimizer.Optimizer | None, weight: paddle.Tensor, moments: bool = True
) -> Iterator[paddle.Tensor]:
    """Yields what an optimizer holds of a weight: its fp32 master copy and its moments.

    Args:
        optimizer: any optimizer of Paddle, also inside a distributed wrapper; None holds nothing.
        weight: a parameter of the optimizer.
        moments: yield moments of the weight's shape as well, such as the velocity of `Momentum`.
    """
    if optimizer is None:
        return
    inner = getattr(optimizer, "_inner_opt", optimizer)
    master = master_weights(optimizer).get(weight.name)
    if master is not None:
        yield master
    owner = weight if master is None else master  # Paddle stores the moments under the master's name
    for accumulator in inner._accumulators.values() if moments else ():
        moment = accumulator.get(owner.name)
        if moment is not None and moment.shape == weight.shape:
            yield moment


def master_weights(optimizer: paddle.optimizer.Optimizer) -> dict[str, paddle.Tensor]:
    """Returns the fp32 master copies of an optimizer by parameter name; empty without mixed precision."""
    return dict(getattr(getattr(optimizer, "_inner_opt", optimizer), "_master_weights", None) or {})


def _was_skipped(optimizer: Any) -> bool:
    """Whether AMP's scaler found an overflow in this step, which it tells the optimizer."""
    ask = getattr(optimizer, "_get_auxiliary_var", None)
    found = ask("found_inf") if ask else None
    return found is not None and bool(found)
