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

_RATE = 1e-3  # of Adam; features are normalized, so that their scale makes no difference


class Projections:
    """Linear maps of channels that learn to predict the teacher's features from the network's.

    They are no part of the network, and its optimizer does not know them: each is trained by an Adam of its own, one
    step a batch, on a copy of the features that is cut from the graph. So neither gradient accumulation, gradient
    clipping and weight decay nor the scaling of mixed precision reach them, and `.pdparams` and `.pdopt` stay those of
    the network. They begin with the same values on every rank and in every run, and draw no random numbers of Paddle.
    """

    def __init__(self) -> None:
        self._weights: dict[str, paddle.Tensor] = {}
        self._optimizers: dict[str, paddle.optimizer.Adam] = {}
        self._restored: dict[str, paddle.Tensor] = {}  # until a step is made: Paddle creates the moments with it

    def apply(self, name: str, student: paddle.Tensor, teacher: paddle.Tensor) -> paddle.Tensor:
        """Projects a feature, and trains the projection with it.

        Args:
            name: name of the feature; a projection is created at its first use.
            student: [b, channels, positions].
            teacher: [b, teacher's channels, positions], without a gradient.

        Returns:
            The projected feature, of the teacher's shape; its gradient reaches `student` alone.

        Raises:
            InputError: the projection that was restored has another shape.
        """
        shape = [teacher.shape[1], student.shape[1]]
        if name not in self._weights:
            bound = math.sqrt(3 / shape[1])
            random = np.random.default_rng(zlib.crc32(name.encode()))
            self._add(name, random.uniform(-bound, bound, shape).astype("float32"))
        weight = self._weights[name]
        if weight.shape != shape:
            raise InputError(
                f"Distillation: the projection of {name} in the checkpoint has shape {weight.shape}, this network and "
                f"its teacher need {shape}"
            )
        # A copy: the step below changes the weight before the backward pass has used it.
        projected = paddle.matmul(weight.detach().clone().astype(student.dtype), student)
        self._train(name, student.detach().astype("float32"), teacher.astype("float32"))
        return projected

    def _add(self, name: str, values: np.ndarray) -> None:
        weight = paddle.create_parameter(
            list(values.shape),
            "float32",
            name=f"projection.{name}",
            default_initializer=paddle.nn.initializer.Assign(values),
        )
        self._weights[name] = weight
        self._optimizers[name] = paddle.optimizer.Adam(_RATE, parameters=[weight])

    def _train(self, name: str, student: paddle.Tensor, teacher: paddle.Tensor) -> None:
        weight, optimizer = self._weights[name], self._optimizers[name]
        feature_distance(paddle.matmul(weight, student), teacher).backward()
        if is_distributed():
            paddle.distributed.all_reduce(weight.grad)
            weight.grad.scale_(1 / paddle.distributed.get_world_size())
        optimizer.step()
        optimizer.clear_grad()
        self._restored = {key: value for key, value in self._restored.items() if not key.startswith(f"{weight.name}_")}

    def shapes(self) -> dict[str, list[int]]:
        """Returns the shape of each projection by its name; plain values."""
        return {name: list(weight.shape) for name, weight in self._weights.items()}

    def arrays(self) -> dict[str, paddle.Tensor]:
        """Returns the weights and the moments of their optimizers."""
        found = dict(self._restored)
        for name, weight in self._weights.items():
            found[weight.name] = weight
            moments = self._optimizers[name].state_dict()
            found.update({key: value for key, value in moments.items() if isinstance(value, paddle.Tensor)})
        return found

    def restore(self, shapes: Any, arrays: Mapping[str, np.ndarray], where: str) -> None:
        """Continues from saved `shapes` and `arrays`.

        Raises:
            InputError: the arrays are not those of the shapes.
        """
        for name, shape in (shapes if isinstance(shapes, Mapping) else {}).items():
            values = arrays.get(f"projection.{name}")
            if list(np.shape(values)) != shape or len(shape) != 2:
                raise InputError(
                    f"{where}: projection.{name} must be an array of shape {shape}, got {list(np.shape(values))}"
                )
            self._add(name, np.asarray(values, "float32"))
            weight = self._weights[name]
            moments = {
                key: paddle.to_tensor(value) for key, value in arrays.items() if key.startswith(f"{weight.name}_")
            }
            try:
                self._optimizers[name].set_state_dict(moments)
            except (AssertionError, KeyError, ValueError) as error:
                reason = " ".join(str(error).split())[-200:]
                raise InputError(f"{where}: the moments of projection.{name} cannot be used: {reason}") from None
            self._restored.update(moments)
