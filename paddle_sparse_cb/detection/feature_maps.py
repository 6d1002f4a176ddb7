"""`FeatureMaps`: the maps that other code may compare or decode, as outputs of a plain layer."""

from __future__ import annotations

from typing import Any

import paddle
from paddle import nn

from .network import DetectionNetwork


class FeatureMaps(nn.Layer):
    """Computes the maps of a detector's neck and the raw maps of its head, in evaluation mode.

    The order of their channels has a meaning outside of the network: boxes are decoded from those of the head, and a
    distillation compares those of the neck with a teacher's.

    Args:
        network: the detector, whose layers are shared.
    """

    def __init__(self, network: DetectionNetwork) -> None:
        super().__init__()
        self.backbone, self.neck, self.head = network.backbone, network.neck, network.head

    def forward(self, image: paddle.Tensor) -> Any:
        """Returns the maps of an image [b, 3, h, w]."""
        maps = self.neck(self.backbone({"image": image}))
        return maps, self.head(maps, False)
