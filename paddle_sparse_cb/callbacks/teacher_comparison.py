"""`TeacherComparison`: runs a teacher on the inputs of a network, and compares their outputs and features."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import paddle
from paddle import nn

from ..errors import InputError
from ..utils.layers import eval_mode
from .distillation_losses import by_channel, feature_distance
from .layer_outputs import LayerOutputs
from .projections import Projections

Loss = Callable[[Any, Any], Any]


@dataclass(frozen=True)
class Compared:
    """What is compared, and with which weights.

    Attributes:
        loss: compares the outputs; returns a tensor with one value, or several by name.
        weight: factor of what `loss` returns; 0 compares no outputs.
        features: structured names of layers in the network, each with that of the layer in the teacher.
        feature_weight: factor of the mean over all maps; 0 compares no features.
        outputs: structured name of the layer whose outputs `loss` is given; empty for the network itself.
    """

    loss: Loss
    weight: float
    features: Mapping[str, str]
    feature_weight: float
    outputs: str


class TeacherComparison:
    """Hooks on a network and its teacher: the latter runs right before the former, on the same inputs.

    Args:
        network: the trained network.
        teacher: the teacher; in evaluation mode until `remove`.
        compared: what is compared.
        projections: between features of different numbers of channels.
        is_training: whether a forward pass of the network is one of the training.

    Raises:
        InputError: a layer does not exist or cannot be observed, or the two networks share a tensor.
    """

    def __init__(
        self,
        network: nn.Layer,
        teacher: nn.Layer,
        compared: Compared,
        projections: Projections,
        is_training: Callable[[], bool],
    ) -> None:
        self.compared, self.projections = compared, projections
        self._teacher, self._is_training = teacher, is_training
        _check_separate(network, teacher)
        outputs = [compared.outputs] if compared.weight else []
        features = compared.features if compared.feature_weight else {}
        with contextlib.ExitStack() as stack:
            self._ours = LayerOutputs(network, [*outputs, *features], "network")
            stack.callback(self._ours.remove)
            self._theirs = LayerOutputs(teacher, [*outputs, *features.values()], "teacher")
            stack.callback(self._theirs.remove)
            stack.enter_context(eval_mode(teacher))
            stack.callback(network.register_forward_pre_hook(self._run_teacher).remove)
            self._attached = stack.pop_all()

    def remove(self) -> None:
        """Removes the hooks and gives each layer of the teacher its own mode back."""
        self._attached.close()

    # The loss is computed outside of `auto_cast`; here the teacher runs under that of the network.
    @paddle.no_grad()
    def _run_teacher(self, network: nn.Layer, inputs: tuple[Any, ...]) -> None:
        if self._is_training():
            self._ours.start()
            self._theirs.start()
            self._teacher(*inputs)

    def terms(self) -> dict[str, paddle.Tensor]:
        """Returns the weighted terms of the last forward pass by name, each with one value, and drops its tensors.

        Raises:
            InputError: the outputs do not fit, or no gradient flows from a term to the network.
        """
        compared = self.compared
        terms: dict[str, paddle.Tensor] = {}
        if compared.weight:
            found = compared.loss(self._ours.last(compared.outputs), self._theirs.last(compared.outputs))
            named = found if isinstance(found, Mapping) else {"outputs": found}
            terms.update({name: compared.weight * term for name, term in named.items()})
        if compared.features and compared.feature_weight:
            terms["features"] = compared.feature_weight * self._feature_distance()
        self._ours.stop()
        self._theirs.stop()
        for name, term in terms.items():
            if term.size != 1:
                raise InputError(f"Distillation: the term {name!r} must be one number, got shape {list(term.shape)}")
            if term.stop_gradient:
                raise InputError(
                    f"Distillation: no gradient flows from the term {name!r} to the network: what it compares is "
                    "frozen, recomputed in the backward pass, or detached"
                )
        return terms

    def _feature_distance(self) -> paddle.Tensor:
        """Returns the mean distance over all maps of all features."""
        distances = [
            self._map_distance(f"{name}#{number}", ours, theirs)
            for name, other in self.compared.features.items()
            for number, (ours, theirs) in enumerate(self._pairs(name, other))
        ]
        return paddle.add_n(distances) / len(distances)

    def _pairs(self, name: str, other: str) -> list[tuple[paddle.Tensor, paddle.Tensor]]:
        ours, theirs = self._ours.maps(name), self._theirs.maps(other)
        if len(ours) != len(theirs) or not ours:
            raise InputError(
                f"Distillation: the layer {name!r} of the network returns {len(ours)} feature maps, {other!r} of the "
                f"teacher {len(theirs)}"
            )
        if any(one.stop_gradient for one in ours):
            raise InputError(
                f"Distillation: no gradient flows to the layer {name!r} of the network: it is frozen, or within a "
                "block that is recomputed in the backward pass"
            )
        return list(zip(ours, theirs))

    def _map_distance(self, name: str, ours: paddle.Tensor, theirs: paddle.Tensor) -> paddle.Tensor:
        if ours.ndim < 2 or ours.ndim != theirs.ndim or _positions(ours) != _positions(theirs):
            raise InputError(
                f"Distillation: feature {name} must have the size of the teacher's in all dimensions but the channels, "
                f"got {list(ours.shape)} and {list(theirs.shape)}"
            )
        student, teacher = by_channel(ours), by_channel(theirs)
        if student.shape[1] != teacher.shape[1]:
            student = self.projections.apply(name, student, teacher)
        return feature_distance(student, teacher)


def _positions(feature: paddle.Tensor) -> list[int]:
    """Returns all sizes of a feature but its channels."""
    channels = 2 if feature.ndim == 3 else 1
    return [size for axis, size in enumerate(feature.shape) if axis != channels]


def _check_separate(network: nn.Layer, teacher: nn.Layer) -> None:
    ours = {id(tensor) for tensor in network.state_dict().values()}
    for name, tensor in teacher.state_dict().items():
        if id(tensor) in ours:
            raise InputError(
                f"Distillation: the teacher shares {name} with the network, which changes it: give another network, "
                "such as a copy.deepcopy of this one before the training"
            )
