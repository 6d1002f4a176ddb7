"""The losses of a detector on fixed batches, with batch norms in evaluation mode."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np
import paddle

from .network import DetectionNetwork


def mean_training_loss(network: DetectionNetwork, batches: Sequence[Sequence[paddle.Tensor]]) -> float:
    """Returns the sum of a detector's losses, averaged over batches.

    Batch norms use their running statistics and do not change them.

    Args:
        network: the detector.
        batches: batches of `network.TRAIN_FIELDS`.
    """
    with paddle.no_grad(), _losses_in_evaluation(network):
        return float(np.mean([sum(float(loss) for loss in network(*batch)) for batch in batches]))


@contextlib.contextmanager
def _losses_in_evaluation(network: DetectionNetwork) -> Iterator[None]:
    """Has a detector compute losses, while all layers below its head are in evaluation mode."""
    modes = [(layer, layer.training) for layer in network.sublayers(include_self=True)]
    network.eval()
    network.training = network.head.training = True
    try:
        yield
    finally:
        for layer, training in modes:
            layer.training = training
