"""Builds everything that `paddle.Model` needs from a configuration: network, data, optimizer, loss and metric."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import paddle

from . import compat, config
from .datasets.dataset import ground_truth, image_ids
from .datasets.loader import SeededLoader, build_loader
from .metric import CocoMAP
from .network import DetectionLoss, DetectionNetwork, build_network, build_optimizer


@dataclass(frozen=True)
class TrainableDetector:
    """A detector that is ready for `model.fit(train_loader, eval_loader)`.

    Attributes:
        network: the network of `model`.
        model: prepared with the configuration's optimizer, `DetectionLoss` and `CocoMAP`.
        train_loader: batches of `network.TRAIN_FIELDS`.
        eval_loader: batches of `network.EVAL_FIELDS`.
        registry: ppdet's registry with the configuration loaded.
    """

    network: DetectionNetwork
    model: paddle.Model
    train_loader: SeededLoader
    eval_loader: SeededLoader
    registry: Any


def build_detector(
    content: dict[str, Any],
    origin: str,
    *,
    amp: dict[str, Any] | None = None,
    find_unused_parameters: bool = False,
    labels: bool = True,
) -> TrainableDetector:
    """Builds the detector of a configuration with initial weights.

    On a CPU its depthwise convolutions are computed by `detection.depthwise`. The caller seeds the random generators
    of Python, NumPy and Paddle; the loaders take `seed` from the configuration.

    Args:
        content: the merged configuration (`config.read_with_bases`) without blocks that ppdet does not know.
        origin: name of the file, for messages.
        amp: `amp_configs` of `paddle.Model.prepare`.
        find_unused_parameters: whether ranks look for parameters without gradients; needed if a rank's batch can be
            without boxes.
        labels: False leaves the boxes out of training batches, and the network computes no losses.

    Raises:
        InputError: an unknown key, or a part that cannot be built from the configuration.
    """
    with config.convert_errors(origin):
        registry = config.load(content, origin)
        network = build_network(registry)
        train_loader, eval_loader = build_loader(registry, "Train", labels), build_loader(registry, "Eval")
        if paddle.get_device() == "cpu":
            from .depthwise import use_fast_depthwise  # here, because numba cannot be installed beside Paddle 3

            use_fast_depthwise(network)
        with compat.find_unused_parameters(find_unused_parameters):
            model = paddle.Model(network, inputs=network.input_spec())
        model.prepare(build_optimizer(network, len(train_loader)), DetectionLoss(), build_metric(eval_loader), amp)
        return TrainableDetector(network, model, train_loader, eval_loader, registry)


def build_metric(eval_loader: SeededLoader) -> CocoMAP:
    """Builds the metric for the images of an evaluation loader.

    Raises:
        InputError: the ground truth cannot be used.
    """
    dataset = eval_loader.dataset.source
    return CocoMAP(ground_truth(dataset), image_ids(dataset))
