"""`TrainingProgress`: a progress bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ..utils.distributed import is_rank_zero, rank_zero_info
from ..utils.messages import logger
from ..utils.terminal_bar import TerminalBar
from ..utils.validation import check_count
from .session import FitCallback


class TrainingProgress(FitCallback):
    """Shows epoch, step, losses, learning rate, sparsity and remaining time, and the metrics of each evaluation.

    Use it in place of hapi's own logger: pass `verbose=0` to `fit`. On an interactive terminal a progress bar stays
    below the printed lines; elsewhere a line is printed every `log_iter` steps. The end of an epoch and an evaluation
    print a line in both cases:

        epoch 2/12  step 20/41  loss 1.234 (vfl 0.5137, bbox 0.42, dfl 0.3)  lr 0.01  sparsity 49.7% of 75%  4 min left
        evaluation: mAP 0.1234, AP50 0.3412

    hapi passes the same `logs` dict to the events of training and evaluation, so that it still holds values of the
    former during the latter. Only losses are therefore shown for a training step, and only metrics for an evaluation.
    The loss of an evaluation is not shown, because hapi keeps that of the last batch only.

    Only rank 0 prints. The bar is removed at the end of every epoch and evaluation, and when `fit` raises.

    Args:
        name: name of the training, shown in the first line.
        loss_names: names of the losses in the network's order. Without them, or if their number differs from the number
            of losses, only the sum of the losses is shown.
        log_iter: steps between two lines; with the package's logger at level DEBUG, each step prints one.

    Raises:
        InputError: `log_iter` is not a positive integer.
    """

    def __init__(self, name: str, loss_names: Sequence[str] = (), log_iter: int = 20) -> None:
        super().__init__()
        self.name, self.loss_names = name, tuple(loss_names)
        self.log_iter = check_count("log_iter", log_iter, least=1)
        self._bar: TerminalBar | None = None
        self._on_terminal = False
        self._timer = _StepTimer()
        self._steps: int | None = None  # of an epoch
        self._eval_steps: int | None = None
        self._epoch = self._step = self._eval_step = 0
        self._losses: list[float] = []
        self._eval_names: list[str] = []
        self._is_announced = self._is_printed = False

    def begin_training(self) -> None:
        """Resets the clock."""
        self._timer, self._steps, self._is_announced = _StepTimer(), None, False

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Prints the length of the training once, before its first epoch."""
        super().on_epoch_begin(epoch, logs)
        self._epoch, self._step = epoch, 0
        self._steps = self.params.get("steps") or self._steps
        if not self._is_announced:
            self._is_announced = True
            epochs = self.params.get("epochs")
            per_epoch = f", {self._steps} steps per epoch" if self._steps else ""
            rank_zero_info(f"training {self.name}: {epochs} epoch{'' if epochs == 1 else 's'}{per_epoch}")
            self._on_terminal = is_rank_zero() and logger.isEnabledFor(logging.INFO) and TerminalBar.is_possible()

    def on_train_batch_end(self, step: int, logs: Any = None) -> None:
        """Updates the bar, or prints a line every `log_iter` steps."""
        self._step = step + 1
        self._losses = _numbers(logs.get("loss")) if isinstance(logs, Mapping) else []
        self._timer.count_step()
        every = 1 if logger.isEnabledFor(logging.DEBUG) else self.log_iter
        self._is_printed = self._step % every == 0 and (every == 1 or not self._on_terminal)
        if self._is_printed:
            rank_zero_info(self._line())
        elif self._is_bar_due():
            self._draw_bar(self._position(), self._step, self._steps, self._figures())

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Removes the bar, and prints a line unless the last step has one."""
        super().on_epoch_end(epoch, logs)
        self.stop()
        if self._step and not self._is_printed:
            rank_zero_info(self._line())
        self._steps = self._steps or self._step or None

    def on_eval_begin(self, logs: Any = None) -> None:
        """Resets the number of evaluated batches."""
        values = logs if isinstance(logs, Mapping) else {}
        steps = values.get("steps")
        self._eval_step, self._eval_steps = 0, steps if isinstance(steps, int) else None
        names = values.get("metrics") or self.params.get("metrics") or ()
        self._eval_names = [name for name in names if name != "loss"]

    def on_eval_batch_end(self, step: int, logs: Any = None) -> None:
        """Updates the bar."""
        self._eval_step += 1
        if self._is_bar_due():
            position = f"evaluation  {_step_of(self._eval_step, self._eval_steps)}"
            self._draw_bar(position, self._eval_step, self._eval_steps)

    def on_eval_end(self, logs: Any = None) -> None:
        """Removes the bar, and prints the metrics that are finite numbers."""
        self.stop()
        if not self._eval_step or not isinstance(logs, Mapping):
            return
        values = {name: _numbers(logs.get(name)) for name in self._eval_names}
        shown = [
            f"{name} {value[0]:.4f}" for name, value in values.items() if len(value) == 1 and math.isfinite(value[0])
        ]
        if shown:
            rank_zero_info(f"evaluation: {', '.join(shown)}")

    def close(self) -> None:
        """Removes the bar, also after an exception."""
        self.stop()

    def stop(self) -> None:
        """Removes the bar from the terminal, if there is one."""
        if self._bar:
            self._bar.stop()
            self._bar = None

    def _is_bar_due(self) -> bool:
        return self._on_terminal and (self._bar is None or self._bar.is_due())

    def _draw_bar(self, position: str, step: int, steps: int | None, figures: str = "") -> None:
        if self._bar is None:
            self._bar = TerminalBar()
        self._bar.draw(position, step, steps, figures)

    def _line(self) -> str:
        figures = self._figures()
        return f"{self._position()}  {figures}" if figures else self._position()

    def _position(self) -> str:
        return f"epoch {self._epoch + 1}/{self.params.get('epochs')}  {_step_of(self._step, self._steps)}"

    def _names(self) -> tuple[str, ...]:
        """The names of the losses, with those that a `Distillation` added; it may have replaced all others."""
        terms = self.session.loss_terms
        own = self.loss_names or (("labels",) if terms else ())
        return terms if len(terms) == len(self._losses) else (*own, *terms)

    def _figures(self) -> str:
        """Losses, learning rate, sparsity and remaining time, as far as they are known."""
        figures = []
        if self._losses:
            figures.append(f"loss {sum(self._losses):.4g}")
        names = self._names()
        if len(self._losses) == len(names) > 1:
            named = ", ".join(f"{name} {loss:.4g}" for name, loss in zip(names, self._losses))
            figures[-1] += f" ({named})"
        optimizer = getattr(self.model, "_optimizer", None)
        if optimizer is not None:
            figures.append(f"lr {optimizer.get_lr():.4g}")
        session = self.session
        if session.pruner is not None and session.mask_recorder is not None:
            figures.append(
                f"sparsity {session.mask_recorder.last.sparsity:.1%} of {100 * session.pruner.overall_target:.4g}%"
            )
        epochs = self.params.get("epochs")
        if self._steps and epochs:
            left = self._timer.seconds_left(self._steps * (epochs - self._epoch) - self._step)
            if left:
                figures.append(f"{_duration(left)} left")
        return "  ".join(figures)


class _StepTimer:
    """Estimates the remaining time from the mean time per step, evaluations and checkpoints included.

    The first step is not timed, because it is slower than the others.
    """

    _FIRST_ESTIMATE = 3  # steps

    def __init__(self) -> None:
        self._steps, self._start = 0, 0.0

    def count_step(self) -> None:
        self._steps += 1
        if self._steps == 1:
            self._start = time.monotonic()

    def seconds_left(self, steps: int) -> float:
        """Seconds for a number of steps; 0 if it is not yet known."""
        if self._steps < self._FIRST_ESTIMATE:
            return 0.0
        return max(0, steps) * (time.monotonic() - self._start) / (self._steps - 1)


def _step_of(step: int, steps: int | None) -> str:
    return f"step {step}/{steps}" if steps else f"step {step}"


def _numbers(value: Any) -> list[float]:
    """The numbers in an entry of `logs`, which is a number or a list of them; empty for anything else."""
    try:
        return [float(number) for number in (value if isinstance(value, (list, tuple)) else [value])]
    except Exception:  # whatever a metric logs, it must not end a training
        return []


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{math.ceil(seconds)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
