"""`EMACallback`: an average of the weights over the steps, with the zeros of the masks."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from ..checkpoints.state import check_same, load_verified
from ..errors import InputError
from ..pruning.optimizer_hook import get_attached_pruner
from ..pruning.zeroing import zeroing
from ..utils.validation import check_fraction
from ..utils.weight_files import load_arrays

DECAY_TYPES = ("threshold", "normal", "exponential")


class WeightAverage:
    """The exponential moving average of a network's state, by the arithmetic of ppdet 2.5's `ModelEMA`.

    All that is floating-point in `state_dict` is averaged, running statistics included; the rest stays as it is.

    Args:
        network: the network; its tensors must not be replaced by others.
        decay: see `EMACallback`, as the rest.
        decay_type: how the decay starts.
        cycle: after so many calls of `values` the average starts anew; 0 is never.
        black_list: parts of names.

    Raises:
        InputError: an entry of the black list is part of no name.
    """

    def __init__(self, network: paddle.nn.Layer, decay: float, decay_type: str, cycle: int,
                 black_list: Sequence[str]) -> None:
        self.decay, self.decay_type, self.cycle = decay, decay_type, cycle
        state = {name: tensor for name, tensor in network.state_dict().items() if paddle.is_floating_point(tensor)}
        for part in black_list:
            if not any(part in name for name in state):
                raise InputError(f"black_list: {part!r} is part of no name in the network")
        averaged = {id(tensor): (name, tensor) for name, tensor in state.items()  # a shared weight once
                    if not any(part in name for part in black_list)}
        self.names = [name for name, _ in averaged.values()]
        self._live = [tensor for _, tensor in averaged.values()]
        self._types = [paddle.float64 if live.dtype == paddle.float64 else paddle.float32 for live in self._live]
        self._same = [live.dtype == dtype for live, dtype in zip(self._live, self._types)]
        self._averages: list[paddle.Tensor] = []
        self._restart()

    def _restart(self) -> None:
        """Starts at zero, which `values` makes up for."""
        self.step, self.shown = 0, 0
        self._averages = [paddle.zeros(live.shape, dtype) for live, dtype in zip(self._live, self._types)]

    def arrays(self) -> dict[str, paddle.Tensor]:
        """The averages as they are kept, by structured name."""
        return dict(zip(self.names, self._averages))

    @paddle.no_grad()
    def restore(self, arrays: Mapping[str, np.ndarray], step: int, shown: int) -> None:
        """Goes on from what `arrays`, `step` and `shown` were."""
        for name, average in zip(self.names, self._averages):
            average.set_value(arrays[name])
        self.step, self.shown = step, shown

    def _decay(self) -> float:
        if self.decay_type == "threshold":
            return min(self.decay, (1 + self.step) / (10 + self.step))
        if self.decay_type == "exponential":
            return self.decay * (1 - math.exp(-(self.step + 1) / 2000))
        return self.decay

    @paddle.no_grad()
    def update(self) -> None:
        """Takes the weights of a step in: average = decay * average + (1 - decay) * weight, in place."""
        self._last = self._decay()
        share = {dtype: paddle.full([1], 1 - self._last, dtype) for dtype in set(self._types)}
        cast, lerp_ = paddle._C_ops.cast, paddle._C_ops.lerp_  # without their wrappers, which cost as much again
        for average, live, dtype, same in zip(self._averages, self._live, self._types, self._same):
            lerp_(average, live if same else cast(live, dtype), share[dtype])
        self.step += 1

    def values(self) -> Iterator[tuple[str, paddle.Tensor, paddle.Tensor]]:
        """The averages as weights; at least one `update` came before.

        Yields:
            A tensor's structured name, the network's tensor and its average, a new tensor of the same type.
        """
        # ppdet makes up for the start at zero with the last decay, as if all had been the same.
        missing = 0.0 if self.decay_type == "exponential" else self._last ** self.step
        for name, live, average in zip(self.names, self._live, self._averages):
            yield name, live, (average / (1 - missing)).astype(live.dtype)
        self.shown += 1
        if self.shown == self.cycle:
            self._restart()


class EMACallback(paddle.callbacks.Callback):
    """Averages the weights over the optimizer steps of `paddle.Model.fit`; what is seen, saved and kept is the average.

    From the last batch of an epoch to the begin of the next one the network holds the averages: evaluations and
    checkpoints are of them, and at the end of the training they stay. The training itself goes on with its own
    weights. With a `SparsityCallback` in the same `fit` the averages have the zeros of its masks. The order of the
    callbacks makes no difference.

    Args:
        decay: how much of the average a step keeps.
        decay_type: `threshold`, at most (1 + step) / (10 + step), `exponential`, decay * (1 - exp(-step / 2000)), or
            `normal`, the decay from the first step on.
        cycle_epochs: after so many epochs the average starts anew; -1 is never.
        black_list: parts of names, such as `["proj_conv.weight"]`, of what is not averaged.
        resume: a `.pdsparse` file that `Checkpoints` wrote, to go on from; the `.pdema` file beside it has the
            averages and the training's own weights.

    Raises:
        InputError: here, when an argument is out of its range; at train begin, when the loader has no length, an entry
            of the black list is part of no name, or the file is of another average.

    Example:
        >>> import paddle
        >>> from paddle_sparse_cb import EMACallback
        >>> data = paddle.io.TensorDataset([paddle.rand([32, 8]), paddle.randint(0, 4, [32, 1])])
        >>> network = paddle.nn.Linear(8, 4)
        >>> model = paddle.Model(network)
        >>> model.prepare(paddle.optimizer.SGD(0.1, parameters=network.parameters()), paddle.nn.CrossEntropyLoss())
        >>> model.fit(data, epochs=2, batch_size=8, verbose=0, callbacks=[EMACallback(decay=0.99)])
    """

    def __init__(self, decay: float = 0.9998, decay_type: str = "threshold", cycle_epochs: int = -1,
                 black_list: Sequence[str] = (), resume: str | os.PathLike[str] | None = None) -> None:
        super().__init__()
        if decay_type not in DECAY_TYPES:
            raise InputError(f"decay_type is one of {', '.join(DECAY_TYPES)}, got {decay_type!r}")
        if type(cycle_epochs) is not int or (cycle_epochs < 1 and cycle_epochs != -1):
            raise InputError(f"cycle_epochs is a number of epochs, or -1 for never, got {cycle_epochs!r}")
        if not isinstance(black_list, (list, tuple, set)) or not all(isinstance(part, str) for part in black_list):
            raise InputError(f"black_list is a list of parts of names, got {black_list!r}")
        self.decay, self.decay_type, self.cycle_epochs = check_fraction("decay", decay), decay_type, cycle_epochs
        self.black_list, self.resume = tuple(black_list), resume
        self._average: WeightAverage | None = None
        # The training's weights while the averages are in, by structured name: the network's tensor, and a copy.
        self._own: dict[str, tuple[paddle.Tensor, paddle.Tensor]] = {}

    def on_train_begin(self, logs: Any = None) -> None:
        """Starts an average."""
        if self.params.get("steps") is None:
            raise InputError("EMACallback: the loader has no length, so the last batch of an epoch is not known")
        self._average = WeightAverage(self.model.network, self.decay, self.decay_type, max(0, self.cycle_epochs),
                                      self.black_list)
        self._own.clear()  # of a training that was interrupted
        self.model._gmp_average = self
        if self.resume is not None:
            self._restore(Path(self.resume))

    def settings(self) -> dict[str, Any]:
        """What has to be equal for another average to go on from this one, and how far it is; plain values."""
        assert self._average is not None
        return {"decay": self.decay, "decay_type": self.decay_type, "cycle_epochs": self.cycle_epochs,
                "black_list": list(self.black_list), "step": self._average.step, "shown": self._average.shown}

    def arrays(self) -> dict[str, paddle.Tensor]:
        """What to save beside the network's own state: `average.<name>`, and `own.<name>` while the averages are in."""
        assert self._average is not None
        own = {f"own.{name}": own for name, (_, own) in self._own.items()}
        return {**own, **{f"average.{name}": average for name, average in self._average.arrays().items()}}

    def _restore(self, path: Path) -> None:
        assert self._average is not None
        found, mine = load_verified(path).training.get("ema") or {}, self.settings()
        progress = {key: found.get(key) for key in ("step", "shown")}
        if not all(type(value) is int and value >= 0 for value in progress.values()):
            progress = {"step": 0, "shown": 0}  # which is not the file's, and so refused
        check_same(found, {**mine, **progress}, f"{path}: ema")
        file = path.with_suffix(".pdema")
        arrays, live = load_arrays(file), self.model.network.state_dict()
        for name in self._average.names:
            wanted = list(live[name].shape)
            for key in (f"average.{name}", f"own.{name}"):
                shape = list(arrays[key].shape) if key in arrays else None
                if shape != wanted and not (shape is None and key.startswith("own.")):
                    raise InputError(f"{file}: of another network: its {key} has shape {shape}, not {wanted}")
        self._average.restore({name: arrays[f"average.{name}"] for name in self._average.names}, **progress)
        self._own = {name: (live[name], paddle.to_tensor(arrays[f"own.{name}"], dtype=live[name].dtype))
                     for name in self._average.names if f"own.{name}" in arrays}

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Gives the training its own weights back."""
        with paddle.no_grad():
            for live, own in self._own.values():
                paddle.assign(own, live)
        self._own.clear()

    def on_train_batch_end(self, step: int, logs: Any = None) -> None:
        """Takes in what an optimizer step has made; after an epoch's last batch, shows the averages.

        Not in `on_epoch_end`, where a callback that comes earlier has already saved.
        """
        assert self._average is not None
        ends = step + 1 == self.params["steps"]
        if ends or (step + 1) % getattr(self.model, "_accumulate", 1) == 0:  # hapi's own rule
            self._average.update()
        ends = ends or getattr(self.model, "num_iters", None) == 1  # this was the last batch that hapi was told to do
        if ends and self._average.step:
            self._show(self._average)

    @paddle.no_grad()
    def _show(self, average: WeightAverage) -> None:
        pruner = get_attached_pruner(self.model._optimizer)
        masks = pruner.masks if pruner else {}
        for name, live, value in average.values():
            self._own[name] = live, live.clone()
            paddle.assign(value, live)
            if live.name in masks:
                zeroing(live, masks[live.name])()

    @paddle.no_grad()
    def on_train_end(self, logs: Any = None) -> None:
        """Forgets the training's own weights, fp32 master copies of them too, or a later step would bring them back."""
        masters = getattr(getattr(self.model._optimizer, "_inner_opt", self.model._optimizer), "_master_weights", {})
        for live, _ in self._own.values():
            if live.name in masters:
                paddle.assign(live.astype("float32"), masters[live.name])
        self._own.clear()
        self._average = None
        del self.model._gmp_average
