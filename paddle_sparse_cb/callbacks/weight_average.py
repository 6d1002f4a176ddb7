"""`WeightAverage`: the exponential moving average of a network's state."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import paddle

from ..errors import InputError
from ..pruning.zeroing import make_zeroing

DECAY_TYPES = ("threshold", "normal", "exponential")


class WeightAverage:
    """The exponential moving average of a network's state, with the arithmetic of ppdet 2.5's `ModelEMA`.

    All floating-point tensors of `state_dict` are averaged, running statistics included; the others are left alone.

    Args:
        network: the network; its tensors must not be replaced afterwards.
        decay: see `EMACallback`.
        decay_type: see `EMACallback`.
        cycle: calls of `values` after which the average restarts; 0 never restarts it.
        black_list: parts of names.

    Raises:
        InputError: an entry of the black list matches no name.
    """

    def __init__(
        self, network: paddle.nn.Layer, decay: float, decay_type: str, cycle: int, black_list: Sequence[str]
    ) -> None:
        self.decay, self.decay_type, self.cycle = decay, decay_type, cycle
        state = {name: tensor for name, tensor in network.state_dict().items() if paddle.is_floating_point(tensor)}
        for part in black_list:
            if not any(part in name for name in state):
                raise InputError(f"black_list: {part!r} matches no name in the network")
        averaged = {
            id(tensor): (name, tensor)
            for name, tensor in state.items()  # a shared weight counts once
            if not any(part in name for part in black_list)
        }
        self.names = [name for name, _ in averaged.values()]
        self._live = [tensor for _, tensor in averaged.values()]
        self._types = [paddle.float64 if live.dtype == paddle.float64 else paddle.float32 for live in self._live]
        self._same = [live.dtype == dtype for live, dtype in zip(self._live, self._types)]
        self._averages: list[paddle.Tensor] = []
        self._restart()

    def _restart(self) -> None:
        """Starts at zero; `values` corrects for that."""
        self.step, self.shown, self._last = 0, 0, 0.0
        self._averages = [paddle.zeros(live.shape, dtype) for live, dtype in zip(self._live, self._types)]

    def arrays(self) -> dict[str, paddle.Tensor]:
        """Returns the averages before the correction, by structured name."""
        return dict(zip(self.names, self._averages))

    @paddle.no_grad()
    def restore(self, arrays: Mapping[str, np.ndarray], step: int, shown: int) -> None:
        """Continues from saved `arrays`, `step` and `shown`."""
        for name, average in zip(self.names, self._averages):
            average.set_value(arrays[name])
        self.step, self.shown = max(0, step - 1), shown
        self._last = self._decay()
        self.step = step

    def _decay(self) -> float:
        if self.decay_type == "threshold":
            return min(self.decay, (1 + self.step) / (10 + self.step))
        if self.decay_type == "exponential":
            return self.decay * (1 - math.exp(-(self.step + 1) / 2000))
        return self.decay

    @paddle.no_grad()
    def update(self) -> None:
        """Adds the weights of a step, in place: average = decay * average + (1 - decay) * weight."""
        self._last = self._decay()
        share = {dtype: paddle.full([1], 1 - self._last, dtype) for dtype in set(self._types)}
        # The operators themselves: their Python wrappers cost as much again.
        cast, lerp_ = paddle._C_ops.cast, paddle._C_ops.lerp_
        for average, live, dtype, same in zip(self._averages, self._live, self._types, self._same):
            lerp_(average, live if same else cast(live, dtype), share[dtype])
        self.step += 1

    @paddle.no_grad()
    def zero_pruned(self, masks: Mapping[str, paddle.Tensor]) -> None:
        """Sets the averages of pruned weights to zero.

        Args:
            masks: `parameter.name` to a bool tensor of the weight's shape, False where a weight is pruned.
        """
        for live, average in zip(self._live, self._averages):
            if live.name in masks:
                make_zeroing(average, masks[live.name])()

    def values(self) -> Iterator[tuple[str, paddle.Tensor, paddle.Tensor]]:
        """Yields the corrected averages; at least one `update` must have come before.

        Yields:
            The structured name of a tensor, the network's tensor, and its average as a new tensor of the same type.
        """
        # ppdet corrects for the start at zero with the last decay, as if all decays had been equal.
        missing = 0.0 if self.decay_type == "exponential" else self._last**self.step
        for name, live, average in zip(self.names, self._live, self._averages):
            yield name, live, (average / (1 - missing)).astype(live.dtype)
        self.shown += 1
        if self.shown == self.cycle:
            self._restart()
