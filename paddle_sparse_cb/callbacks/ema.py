"""`EMACallback`: an exponential moving average of the weights that has the zeros of the masks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import paddle

from ..checkpoints.position import ResumeState
from ..errors import InputError
from ..pruning.optimizer_hook import OptimizerHook, master_weights
from ..pruning.zeroing import make_zeroing
from ..utils.validation import check_fraction, check_same
from .session import FitCallback
from .weight_average import DECAY_TYPES, WeightAverage


class EMACallback(FitCallback):
    """Averages the weights over the optimizer steps of `paddle.Model.fit`; evaluations and checkpoints use the average.

    From the last batch of an epoch to the begin of the next one the network holds the averages: evaluations and
    checkpoints see them, and they remain when the training ends. The training itself continues with its own weights.
    With a `SparsityCallback` in the same `fit` the averages have the zeros of its masks. The order of the callbacks
    makes no difference.

    Args:
        decay: the share of the average that a step keeps.
        decay_type: `threshold`, at most (1 + step) / (10 + step); `exponential`, decay * (1 - exp(-step / 2000)); or
            `normal`, the decay from the first step on.
        cycle_epochs: epochs after which the average restarts; -1 never restarts it.
        black_list: parts of names, such as `["proj_conv.weight"]`, of what is not averaged.
        resume: the checkpoint to resume from: a `.pdsparse` file that `Checkpoints` wrote, or a `ResumeState`. None
            uses the checkpoint that another callback of the same `fit` resumes from, if there is one.

    Raises:
        InputError: when created, if an argument is out of range; at train begin, if the loader has no length, an entry
            of the black list matches nothing, or the checkpoint has no average or one with other settings.

    Examples:
        >>> import paddle
        >>> from paddle_sparse_cb import EMACallback
        >>> data = paddle.io.TensorDataset([paddle.rand([32, 8]), paddle.randint(0, 4, [32, 1])])
        >>> network = paddle.nn.Linear(8, 4)
        >>> model = paddle.Model(network)
        >>> model.prepare(paddle.optimizer.SGD(0.1, parameters=network.parameters()), paddle.nn.CrossEntropyLoss())
        >>> model.fit(data, epochs=2, batch_size=8, verbose=0, callbacks=[EMACallback(decay=0.99)])
    """

    stage = 4  # checkpoints are saved before the training's own weights are dropped

    def __init__(
        self,
        decay: float = 0.9998,
        decay_type: str = "threshold",
        cycle_epochs: int = -1,
        black_list: Sequence[str] = (),
        resume: str | os.PathLike[str] | ResumeState | None = None,
    ) -> None:
        super().__init__()
        if decay_type not in DECAY_TYPES:
            raise InputError(f"decay_type must be one of {', '.join(DECAY_TYPES)}, got {decay_type!r}")
        if type(cycle_epochs) is not int or (cycle_epochs < 1 and cycle_epochs != -1):
            raise InputError(f"cycle_epochs must be a number of epochs, or -1 for never, got {cycle_epochs!r}")
        if not isinstance(black_list, (list, tuple, set)) or not all(isinstance(part, str) for part in black_list):
            raise InputError(f"black_list must be a list of parts of names, got {black_list!r}")
        self.decay, self.decay_type, self.cycle_epochs = check_fraction("decay", decay), decay_type, cycle_epochs
        self.black_list, self.resume = tuple(black_list), resume
        self._average: WeightAverage | None = None
        # The ratios of the masks that the averages were zeroed with.
        self._masked_ratios: tuple[float, dict[float, float]] | None = None
        # The training's own weights while the network holds the averages, by structured name: the network's tensor,
        # and a copy of its values.
        self._own: dict[str, tuple[paddle.Tensor, paddle.Tensor]] = {}

    def begin_training(self) -> None:
        """Starts an average, or continues that of the checkpoint, and updates it after each optimizer step."""
        session = self.session
        if self.params.get("steps") is None:
            raise InputError("EMACallback: the loader has no length, so the last batch of an epoch is unknown")
        if session.average is not None:
            raise InputError("two EMACallbacks in one fit: use one")
        self._average = WeightAverage(
            self.model.network, self.decay, self.decay_type, max(0, self.cycle_epochs), self.black_list
        )
        self._own.clear()
        session.average = self
        resume = self.resume if self.resume is not None else session.resume
        if resume is not None:
            if not isinstance(resume, ResumeState):
                same = session.resume is not None and session.resume.path == Path(resume)
                resume = session.resume if same and session.resume else ResumeState.open(resume)
            self._restore(resume)
        self._masked_ratios = None
        OptimizerHook.of(self.model._optimizer).add(self._update)

    @paddle.no_grad()
    def _update(self) -> None:
        """Adds the weights of a step, and zeroes the averages of weights that were pruned in it.

        Their weights stay zero, so that the averages do too until the masks change again, with a higher ratio.
        """
        assert self._average is not None
        self._average.update()
        pruner = self.session.pruner
        if pruner is not None and (pruner.ratio, pruner.own_ratios) != self._masked_ratios:
            self._average.zero_pruned(pruner.masks)
            self._masked_ratios = pruner.ratio, pruner.own_ratios

    def settings(self) -> dict[str, Any]:
        """Returns what a resumed run must have in common with this one, and the progress; plain values."""
        assert self._average is not None
        return {
            "decay": self.decay,
            "decay_type": self.decay_type,
            "cycle_epochs": self.cycle_epochs,
            "black_list": list(self.black_list),
            "step": self._average.step,
            "shown": self._average.shown,
        }

    def arrays(self) -> dict[str, paddle.Tensor]:
        """Returns the averages as `average.<name>` and, while the network holds them, its weights as `own.<name>`."""
        assert self._average is not None
        own = {f"own.{name}": own for name, (_, own) in self._own.items()}
        return {**own, **{f"average.{name}": average for name, average in self._average.arrays().items()}}

    def _restore(self, resume: ResumeState) -> None:
        assert self._average is not None
        saved = resume.state.training.get("ema") or {}
        if not saved:
            raise InputError(f"{resume.path}: the checkpoint has no weight average, and this run has an EMACallback")
        progress = {key: saved.get(key) for key in ("step", "shown")}
        if not all(type(value) is int and value >= 0 for value in progress.values()):
            raise InputError(f"{resume.path}: ema: step and shown must be whole numbers, got {progress}")
        check_same(saved, {**self.settings(), **progress}, f"{resume.path}: ema")
        arrays, live = resume.arrays(".pdema"), self.model.network.state_dict()
        for name in self._average.names:
            expected = list(live[name].shape)
            for key in (f"average.{name}", f"own.{name}"):
                shape = list(arrays[key].shape) if key in arrays else None
                if shape != expected and not (shape is None and key.startswith("own.")):
                    raise InputError(
                        f"{resume.path.with_suffix('.pdema')}: a checkpoint of another network: {key} has "
                        f"shape {shape} in the checkpoint and {expected} in this network"
                    )
        self._average.restore({name: arrays[f"average.{name}"] for name in self._average.names}, **progress)
        self._own = {
            name: (live[name], paddle.to_tensor(arrays[f"own.{name}"], dtype=live[name].dtype))
            for name in self._average.names
            if f"own.{name}" in arrays
        }

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Gives the training its own weights back."""
        super().on_epoch_begin(epoch, logs)
        with paddle.no_grad():
            for live, own in self._own.values():
                paddle.assign(own, live)
        self._own.clear()

    def on_train_batch_end(self, step: int, logs: Any = None) -> None:
        """Puts the averages into the network after the last batch of an epoch.

        `on_epoch_end` would be too late: a callback that comes earlier has already saved.
        """
        assert self._average is not None
        is_last = step + 1 == self.params["steps"] or getattr(self.model, "num_iters", None) == 1
        if is_last and self._average.step:
            self._show(self._average)

    @paddle.no_grad()
    def _show(self, average: WeightAverage) -> None:
        pruner = self.session.pruner
        masks = pruner.masks if pruner else {}
        for name, live, value in average.values():
            self._own[name] = live, live.clone()
            paddle.assign(value, live)
            if live.name in masks:
                make_zeroing(live, masks[live.name])()

    @paddle.no_grad()
    def after_training(self) -> None:
        """Puts the averages into the fp32 master weights too; a later step would bring the training's own back."""
        masters = master_weights(self.model._optimizer)
        for live, _ in self._own.values():
            if live.name in masters:
                paddle.assign(live.astype("float32"), masters[live.name])

    def close(self) -> None:
        """Stops averaging and drops the averages, also after an exception."""
        if self._average is not None:
            hook = OptimizerHook.attached_to(self.model._optimizer)
            if hook:
                hook.remove(self._update)
        self._own.clear()
        self._average = None
