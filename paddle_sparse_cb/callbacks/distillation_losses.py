"""What a distillation compares: softened class probabilities, and feature maps of which each channel is normalized."""

from __future__ import annotations

from typing import Any

import paddle
from paddle.nn import functional

from ..errors import InputError

_EPSILON = 1e-6  # beside the variance of a channel


class SoftenedLogits:
    """Compares class probabilities at a temperature (Hinton, Vinyals and Dean, 2015).

    The loss is T^2 * KL(softmax(teacher / T) || softmax(student / T)), summed over the classes (the last axis) and
    averaged over everything else. The factor keeps the size of the gradients independent of the temperature.

    Args:
        temperature: T; larger ones bring out the small probabilities.
    """

    def __init__(self, temperature: float) -> None:
        self.temperature = temperature

    def settings(self) -> dict[str, Any]:
        """Returns what a resumed run must have in common with this one."""
        return {"temperature": self.temperature}

    def __call__(self, student: Any, teacher: Any) -> dict[str, paddle.Tensor]:
        """Compares logits of shape [..., classes].

        Raises:
            InputError: the outputs are not one tensor each, or differ in shape.
        """
        ours, theirs = _only_tensor(student, "network"), _only_tensor(teacher, "teacher")
        if ours.shape != theirs.shape:
            raise InputError(
                f"Distillation: the logits of the network have shape {list(ours.shape)}, those of the teacher "
                f"{list(theirs.shape)}"
            )
        log_ours = functional.log_softmax(ours / self.temperature)
        log_theirs = functional.log_softmax(theirs / self.temperature)
        divergence = (log_theirs.exp() * (log_theirs - log_ours)).sum(-1).mean()
        return {"logits": self.temperature**2 * divergence}


def _only_tensor(outputs: Any, whose: str) -> paddle.Tensor:
    tensors = paddle.utils.flatten(outputs)
    if len(tensors) != 1 or not isinstance(tensors[0], paddle.Tensor):
        raise InputError(
            f"Distillation: the {whose} returns {len(tensors)} values, not one tensor of logits: name the layer that "
            "does with outputs=, or compare them with a function of your own, loss="
        )
    return as_float(tensors[0])


def as_float(tensor: paddle.Tensor) -> paddle.Tensor:
    """Returns a tensor in float32 or float64: sums over a map overflow in half precision."""
    return tensor if tensor.dtype in (paddle.float32, paddle.float64) else tensor.astype("float32")


def by_channel(feature: paddle.Tensor) -> paddle.Tensor:
    """Reshapes a feature to [b, channels, positions].

    Args:
        feature: [b, channels], [b, tokens, channels], or [b, channels, ...] with more than three dimensions.
    """
    feature = as_float(feature)
    if feature.ndim == 3:
        return feature.transpose([0, 2, 1])
    return feature.reshape([feature.shape[0], feature.shape[1], -1])


def feature_distance(student: paddle.Tensor, teacher: paddle.Tensor) -> paddle.Tensor:
    """Returns the mean squared difference of two features, each channel normalized over batch and positions.

    With this normalization it is 2 * (1 - r), r being the mean correlation of the channels, whatever their scales (Cao
    et al., "PKD", 2022).

    Args:
        student: [b, channels, positions].
        teacher: the same shape.
    """
    return (_normalized(student) - _normalized(teacher)).square().mean()


def _normalized(feature: paddle.Tensor) -> paddle.Tensor:
    centred = feature - feature.mean([0, 2], keepdim=True)
    return centred * (centred.square().mean([0, 2], keepdim=True) + _EPSILON).rsqrt()
