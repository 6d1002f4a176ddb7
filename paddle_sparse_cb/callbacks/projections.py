"""`Projections`: 1x1 convolutions from the channels of a network's features to those of its teacher's."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import paddle

from ..errors import InputError
from ..utils.distributed import is_distributed
from .distillation_losses import feature_distance

_RATE, _BETAS, _EPSILON = 1e-3, (0.9, 0.999), 1e-8  # of Adam; features are normalized, whatever their scale
_MAX_STEPS = 2**53
_PARTS = ("weight", "moment1", "moment2")


class Projections:
    """Linear maps of channels that learn to predict the teacher's features from the network's.

    They are no part of the network, and its optimizer does not know them: they are trained by Adam, one step a batch,
    on a copy of the features that is cut from the graph. So neither gradient accumulation, clipping and weight decay
    nor the scaling of mixed precision reach them, and `.pdparams` and `.pdopt` stay those of the network. Adam is
    written out, because the tensors of Paddle's own have names that depend on what the process did before.

    They begin with the same values on every rank and in every run, and draw no random numbers of Paddle.
    """

    def __init__(self) -> None:
        self._tensors: dict[str, dict[str, paddle.Tensor]] = {}  # by projection, then by `_PARTS`
        self._steps: dict[str, int] = {}

    def apply(self, name: str, student: paddle.Tensor, teacher: paddle.Tensor) -> paddle.Tensor:
        """Projects a feature, and trains the projection with it.

        Args:
            name: name of the projection, which is created at its first use.
            student: [b, channels, positions].
            teacher: [b, teacher's channels, positions], without a gradient.

        Returns:
            The projected feature, of the teacher's shape; its gradient reaches `student` alone.

        Raises:
            InputError: the projection that was restored has another shape.
        """
        shape = [teacher.shape[1], student.shape[1]]
        if name not in self._tensors:
            self._add(name, {"weight": _initial(name, shape)}, 0)
        weight = self._tensors[name]["weight"]
        if list(weight.shape) != shape:
            raise InputError(
                f"Distillation: the projection of {name} has shape {list(weight.shape)} in the checkpoint, and this "
                f"network and its teacher need {shape}"
            )
        # A copy: the step below changes the weight before the backward pass has used it.
        projected = paddle.matmul(weight.clone().astype(student.dtype), student)
        self._step(name, student.detach().astype("float32"), teacher.astype("float32"))
        return projected

    def _add(self, name: str, arrays: Mapping[str, np.ndarray], steps: int) -> None:
        shape = np.shape(arrays["weight"])
        self._tensors[name] = {
            part: paddle.to_tensor(arrays.get(part, np.zeros(shape)), dtype="float32") for part in _PARTS
        }
        self._steps[name] = steps

    def _step(self, name: str, student: paddle.Tensor, teacher: paddle.Tensor) -> None:
        """Makes a step of Adam with the gradient of all ranks."""
        weight = self._tensors[name]["weight"].clone()
        weight.stop_gradient = False
        distance = feature_distance(paddle.matmul(weight, student), teacher)
        [gradient] = paddle.grad(distance, weight)
        if is_distributed():
            paddle.distributed.all_reduce(gradient)
            gradient = gradient / paddle.distributed.get_world_size()
        self._steps[name] += 1
        with paddle.no_grad():
            self._tensors[name] = _adam(self._tensors[name], gradient, self._steps[name])

    def state(self) -> dict[str, Any]:
        """Returns shape and steps of each projection; plain values."""
        return {
            name: {"shape": list(tensors["weight"].shape), "steps": self._steps[name]}
            for name, tensors in self._tensors.items()
        }

    def arrays(self) -> dict[str, paddle.Tensor]:
        """Returns weights and moments as `<projection>.<part>`."""
        return {f"{name}.{part}": tensor for name, tensors in self._tensors.items() for part, tensor in tensors.items()}

    def restore(self, state: Any, arrays: Mapping[str, np.ndarray], where: str) -> None:
        """Continues from what `state` and `arrays` returned.

        Raises:
            InputError: the arrays do not fit the state.
        """
        for name, saved in (state if isinstance(state, Mapping) else {}).items():
            shape, steps = (saved.get(key) if isinstance(saved, Mapping) else None for key in ("shape", "steps"))
            found = {part: np.asarray(arrays.get(f"{name}.{part}")) for part in _PARTS}
            for part, array in found.items():
                if not isinstance(shape, list) or len(shape) != 2 or list(array.shape) != shape:
                    raise InputError(f"{where}: {name}.{part} must have shape {shape}, got {list(array.shape)}")
                if array.dtype != np.float32:
                    raise InputError(f"{where}: {name}.{part} must be of type float32, got {array.dtype}")
            if type(steps) is not int or not 1 <= steps <= _MAX_STEPS:
                raise InputError(
                    f"{where}: the steps of {name} must be a whole number from 1 to {_MAX_STEPS}, got {steps!r}"
                )
            self._add(name, found, steps)


def _initial(name: str, shape: list[int]) -> np.ndarray:
    bound = math.sqrt(3 / shape[1])
    return np.random.default_rng(zlib.crc32(name.encode())).uniform(-bound, bound, shape)


def _adam(tensors: dict[str, paddle.Tensor], gradient: paddle.Tensor, step: int) -> dict[str, paddle.Tensor]:
    """Returns weight and moments after a step (Kingma and Ba, 2015)."""
    first = _BETAS[0] * tensors["moment1"] + (1 - _BETAS[0]) * gradient
    second = _BETAS[1] * tensors["moment2"] + (1 - _BETAS[1]) * gradient.square()
    size = _RATE * math.sqrt(1 - _BETAS[1] ** step) / (1 - _BETAS[0] ** step)
    return {
        "weight": tensors["weight"] - size * first / (second.sqrt() + _EPSILON),
        "moment1": first,
        "moment2": second,
    }
