"""What one PicoDet can teach another: scores of classes, and distributions of the sides of boxes."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import paddle
from paddle import nn
from paddle.nn import functional

from ..errors import InputError
from .network import DetectionNetwork

_EPSILON = 1e-7  # scores of float32 are 0 or 1 beyond it


class TeacherNetwork(nn.Layer):
    """A PicoDet that returns the training outputs of its head in evaluation mode, without boxes and losses.

    Its layers have the names of the detector's, such as `neck` and `head`.

    Args:
        network: a loaded network; its layers are shared, not copied.
    """

    def __init__(self, network: DetectionNetwork) -> None:
        super().__init__()
        for name, child in network.named_children():
            self.add_sublayer(name, child)

    def forward(self, image: paddle.Tensor, *others: paddle.Tensor) -> Any:
        """Computes the outputs of the head for a batch of a `DetectionNetwork`; only the image is used."""
        features = self.neck(self.backbone({"image": image}))
        with _training_outputs(self.head):
            return self.head(features)


@contextlib.contextmanager
def _training_outputs(head: nn.Layer) -> Any:
    """Has a head return what it returns in training, while the batch norms in it stay in evaluation mode."""
    before, head.training = head.training, True
    try:
        yield
    finally:
        head.training = before


class DetectionDistillation:
    """Compares the training outputs of two PicoDet heads: `loss` of a `Distillation` with `outputs="head"`.

    - `classification`: squared difference of the class scores, times their cross entropy with the teacher's scores as
      targets, as in the quality focal loss (Li et al., 2020).
    - `localization`: divergence of the distributions over the distances to the four sides of a box, averaged over the
      sides and weighted by the teacher's best score at that place (Zheng et al., "Localization Distillation", 2022).

    Both are divided by the sum of the teacher's best scores over all places of the batch, at least 1, as PicoDet's own
    losses are by the sum of the assigned scores.

    Args:
        classification: weight of the former; 0 leaves it out.
        localization: weight of the latter.
    """

    def __init__(self, classification: float = 1.0, localization: float = 0.5) -> None:
        self.classification, self.localization = classification, localization

    def settings(self) -> dict[str, Any]:
        """Returns what a resumed run must have in common with this one."""
        return {"classification": self.classification, "localization": self.localization}

    def __call__(self, student: Any, teacher: Any) -> dict[str, paddle.Tensor]:
        """Compares what two heads returned.

        Raises:
            InputError: they differ in places, classes or bins.
        """
        (scores, sides), (targets, target_sides) = head_outputs(student), head_outputs(teacher)
        if scores.shape != targets.shape or sides.shape != target_sides.shape:
            raise InputError(
                "Distillation: the teacher's head must have the strides, classes and reg_max of this one: scores have "
                f"shape {targets.shape} and {scores.shape}, sides {target_sides.shape} and {sides.shape}"
            )
        best = targets.max(axis=-1)  # [b, places]
        places = best.sum().clip(min=1.0)
        terms = {}
        if self.classification:
            terms["classification"] = self.classification * _quality_focal(scores, targets).sum() / places
        if self.localization:
            divergence = _divergence(sides, target_sides).mean(axis=-1)
            terms["localization"] = self.localization * (best * divergence).sum() / places
        return terms


def head_outputs(outputs: Sequence[Any]) -> tuple[paddle.Tensor, paddle.Tensor]:
    """Returns the scores and the logits of the sides from what a PicoHead or a PicoHeadV2 returns in training.

    Args:
        outputs: of a PicoHead, logits and sides, each a list of [b, channels, h, w]; of a PicoHeadV2, scores [b,
            places, classes], sides [b, places, 4 * bins], boxes and features.

    Returns:
        Scores in 0 to 1 of shape [b, places, classes], and logits of shape [b, places, 4, bins]; both float32.
    """
    scores, sides = outputs[:2]
    if isinstance(scores, (list, tuple)):
        scores = functional.sigmoid(_flat(scores).astype("float32"))
        sides = _flat(sides)
    batch, places = scores.shape[:2]
    return scores.astype("float32"), sides.astype("float32").reshape([batch, places, 4, -1])


def _flat(maps: Sequence[paddle.Tensor]) -> paddle.Tensor:
    """Joins the maps of all strides to [b, places, channels]."""
    return paddle.concat([one.flatten(2).transpose([0, 2, 1]) for one in maps], axis=1)


def _quality_focal(scores: paddle.Tensor, targets: paddle.Tensor) -> paddle.Tensor:
    scores = scores.clip(_EPSILON, 1 - _EPSILON)
    entropy = -(targets * scores.log() + (1 - targets) * (1 - scores).log())
    return (scores - targets).square() * entropy


def _divergence(sides: paddle.Tensor, targets: paddle.Tensor) -> paddle.Tensor:
    """Returns KL(softmax(targets) || softmax(sides)) over the last axis."""
    log_sides, log_targets = functional.log_softmax(sides), functional.log_softmax(targets)
    return (log_targets.exp() * (log_targets - log_sides)).sum(axis=-1)


def check_teacher(student: DetectionNetwork, teacher: DetectionNetwork) -> None:
    """Checks that the heads of two detectors can be compared.

    Raises:
        InputError: they differ in classes, strides or bins of the distances.
    """
    for name in ("num_classes", "fpn_stride", "reg_max"):
        ours, theirs = getattr(student.head, name), getattr(teacher.head, name)
        if ours != theirs:
            raise InputError(f"the teacher must have the {name} of this recipe, {ours}, got {theirs}")
