"""`FitSession`: what the callbacks of one `paddle.Model.fit` share, so that their order does not matter.

hapi calls callbacks in the order of the list. What depends on another callback (a checkpoint needs the pruner's masks
and the averages, the hooks need the checkpoint) is therefore done in stages, whichever callback is called first.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import paddle

from ..checkpoints.identity import describe_training, rate_state, restore_rate
from ..checkpoints.position import ResumeState, TrainingPosition
from ..errors import InputError
from .compat import current_session, install_sessions

if TYPE_CHECKING:
    from ..pruning.mask_updates import MaskRecorder
    from ..pruning.pruner import GMPPruner


class WithArrays(Protocol):
    """What has tensors that checkpoints save, such as `Distillation`."""

    def arrays(self) -> Mapping[str, paddle.Tensor]:
        """Returns the tensors to save, by name."""


class Average(WithArrays, Protocol):
    """A weight average that checkpoints save, such as `EMACallback`."""

    def settings(self) -> dict[str, Any]:
        """Returns plain values: what a resumed run must have in common, and the progress."""


class FitSession:
    """What this package's callbacks share during one call of `paddle.Model.fit`.

    Attributes:
        model: the model that is trained.
        position: the current epoch and its completed batches; before the first epoch, where the training resumes.
        resume: the checkpoint that the training resumes from.
        pruner: the pruner, if a `SparsityCallback` takes part.
        mask_recorder: what the pruner's mask updates change, if there is a pruner.
        average: the weight average, if an `EMACallback` takes part.
        distillation: the distillation, if a `Distillation` takes part.
        loss_names: the `names` of the loss function, if it has a list of them.
        loss_terms: the names of the distillation's terms, whose values come last among the losses that hapi logs.
        is_finished: whether the training ended regularly.
        arguments: the arguments of `fit`.
        identity: what identifies the training (`describe_training`); empty before it begins.
        allow_config_change: whether this run may differ from the checkpoint.
        num_iters: the iterations after which hapi ends the training, if it is told to.
    """

    def __init__(self, model: paddle.Model, arguments: Mapping[str, Any] | None = None) -> None:
        self.model = model
        self.arguments = arguments or {}
        self.identity: dict[str, Any] = {}
        self.num_iters: int | None = self.arguments.get("num_iters")
        self._rate_at_begin: Any = None
        self.position = TrainingPosition()
        self.resume: ResumeState | None = None
        self.pruner: GMPPruner | None = None
        self.mask_recorder: MaskRecorder | None = None
        self.average: Average | None = None
        self.distillation: WithArrays | None = None
        names = getattr(getattr(model, "_loss", None), "names", None)  # before a `Distillation` wraps the function
        self.loss_names = tuple(names) if isinstance(names, (list, tuple)) else ()
        self.loss_terms: tuple[str, ...] = ()
        self.allow_config_change = False
        self.is_finished = False
        self._members: list[FitCallback] = []
        self._has_begun = False
        self._resume_steps = 0

    def join(self, member: FitCallback) -> None:
        """Adds a callback; it is called in the order of its `stage`."""
        if member not in self._members:
            self._members.append(member)
            self._members.sort(key=lambda one: one.stage)

    @property
    def has_members(self) -> bool:
        """Whether a callback of this package takes part."""
        return bool(self._members)

    def log_values(self) -> dict[str, float]:
        """Returns what callbacks add to hapi's logs of a training batch, by name."""
        return {name: value for member in self._members for name, value in member.log_values().items()}

    @property
    def target_reached(self) -> bool:
        """Whether the masks are those of the target ratios; without a pruner there is nothing to wait for."""
        return self.pruner is None or self.pruner.is_at_target

    def load_checkpoint(self, resume: ResumeState, batches: int | None, allow_config_change: bool = False) -> int:
        """Loads network, optimizer and position of a checkpoint into the model, once, and returns the optimizer steps.

        Raises:
            InputError: see `ResumeState.load_into`, or another callback resumes from another checkpoint.
        """
        if self.resume is not None and self.resume is not resume:
            raise InputError(f"two callbacks resume from two checkpoints: {self.resume.path} and {resume.path}")
        if self.resume is None:
            self.position = resume.position_in(batches, allow_config_change)
            self._resume_steps = resume.load_into(self.model, batches, allow_config_change, self.identity or None)
            self.resume, self.allow_config_change = resume, allow_config_change
            self._rate_at_begin = deepcopy(rate_state(self.model._optimizer))
        return self._resume_steps

    def saved(self, key: str) -> Any:
        """Returns a value of the checkpoint's training state, None if there is no checkpoint or no such value."""
        return self.resume.state.training.get(key) if self.resume else None

    @property
    def completed_iterations(self) -> int:
        """The iterations that count towards `num_iters`: hapi counts the batches of evaluations too."""
        return (self.num_iters or 0) - (getattr(self.model, "num_iters", None) or 0)

    def continue_iterations(self) -> bool:
        """Subtracts the iterations of the checkpoint from `num_iters`; returns whether any remain."""
        if self.num_iters is None:
            return True
        completed = self.saved("iterations")
        remaining = self.num_iters - (completed if type(completed) is int else 0)
        self.model.num_iters = max(1, remaining)
        return remaining > 0

    def optimizer_steps(self, batches: int | None, epochs: int) -> tuple[int | None, int | None]:
        """Returns the optimizer steps of an epoch and of this `fit`; None where the loader has no length.

        hapi steps the optimizer at every n-th batch (`accumulate_grad_batches`) and at the last batch of an epoch, and
        may be told to end after a number of batches (`num_iters`).

        Args:
            batches: batches of an epoch; None if the loader has no length.
            epochs: epochs of this `fit`.
        """
        if batches is None:
            return None, None
        accumulate = getattr(self.model, "_accumulate", 1)
        per_epoch = -(-batches // accumulate)
        if self.num_iters is None:
            return per_epoch, epochs * per_epoch
        return per_epoch, self.num_iters // batches * per_epoch + self.num_iters % batches // accumulate

    def restore_rate(self) -> None:
        """Sets the learning rate to that of the checkpoint again."""
        restore_rate(self.model._optimizer, self._rate_at_begin)

    def arrays(self) -> dict[str, Mapping[str, paddle.Tensor]]:
        """Returns what checkpoints save beside network and optimizer: tensors by the suffix of their file."""
        owners = {".pdema": self.average, ".pddistill": self.distillation}
        found = {suffix: owner.arrays() for suffix, owner in owners.items() if owner is not None}
        return {suffix: arrays for suffix, arrays in found.items() if arrays}

    def callback_states(self) -> dict[str, Any]:
        """Returns the states of all callbacks that have one, by their keys; plain values to be saved."""
        return {key: value for member in self._members for key, value in member.state().items()}

    def begin(self) -> None:
        """Begins the training of all callbacks in the order of their stages; further calls do nothing."""
        if not self._has_begun:
            self._has_begun = True
            if self.arguments:  # not outside of a `fit`
                self.identity = describe_training(self.model, self.arguments)
            for member in self._members:
                member.begin_training()

    def end_epoch(self) -> None:
        """Ends an epoch of all callbacks in the order of their stages, when no callback has anything left to do."""
        for member in self._members:
            member.after_epoch()

    def end(self) -> None:
        """Ends the training of all callbacks in the order of their stages; further calls do nothing."""
        if not self.is_finished:
            self.is_finished = True
            for member in self._members:
                member.end_training()
            for member in self._members:
                member.after_training()

    def close(self) -> None:
        """Releases the optimizer and the model, however the training ended and even if a callback fails here."""
        with contextlib.ExitStack() as stack:
            for member in self._members:
                stack.callback(member.close)


class FitCallback(paddle.callbacks.Callback):
    """Base class of the callbacks that share a `FitSession`; their order in `fit` makes no difference.

    Subclasses override `begin_training`, `end_training` and `after_training` in place of `on_train_begin` and
    `on_train_end`, and call `super()` in the other events that they override.

    Attributes:
        stage: callbacks with a lower stage begin and end first.
    """

    stage = 2

    @property
    def session(self) -> FitSession:
        """The session of the `fit` that runs; outside of a `fit`, one of its own."""
        return current_session(self.model) or FitSession(self.model)

    def begin_training(self) -> None:
        """Called once when the training begins."""

    def end_training(self) -> None:
        """Called once when the training ends regularly."""

    def after_training(self) -> None:
        """Called once after `end_training` of all callbacks."""

    def after_epoch(self) -> None:
        """Called after `on_epoch_end` of all callbacks, also of those of others."""

    def close(self) -> None:
        """Called when `fit` returns or raises."""

    def state(self) -> dict[str, Any]:
        """Returns plain values that checkpoints save, for `session.saved(key)` in a resumed run."""
        return {}

    def log_values(self) -> dict[str, float]:
        """Returns what hapi's progress bar and other callbacks are to see in the logs of a training batch."""
        return {}

    def set_params(self, params: dict[str, Any]) -> None:
        """Joins the session."""
        super().set_params(params)
        self.session.join(self)

    def on_train_begin(self, logs: Any = None) -> None:
        """Begins the training of all callbacks of the session."""
        self.session.begin()

    def on_train_end(self, logs: Any = None) -> None:
        """Ends the training of all callbacks of the session."""
        self.session.end()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Updates the position."""
        self.session.position = TrainingPosition(epoch)

    def on_train_batch_begin(self, step: int, logs: Any = None) -> None:
        """Updates the position."""
        self._update_position(step)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Updates the position."""
        self._end_epoch(epoch)

    def _update_position(self, step: int) -> None:
        session = self.session
        session.position = replace(session.position, batch=step)

    def _end_epoch(self, epoch: int) -> None:
        self.session.position = TrainingPosition(epoch, self.params["steps"] or 0)


# At import and not when a callback is created: `model.fit(callbacks=[SparsityCallback()])` looks `fit` up first.
install_sessions(FitSession)
