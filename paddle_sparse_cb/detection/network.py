"""A ppdet detector as the plain `nn.Layer` that `paddle.Model` drives: ordered tensors in, losses or boxes out."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import paddle
from paddle import nn
from paddle.static import InputSpec

from ..errors import InputError
from .config import blaming, create

# Of a network; PicoDet-l has 3.3 million in some 500.
_MOST_WEIGHTS = 100_000_000
_MOST_ARRAYS = 5_000
_MOST_STEPS = 20_000_000

LOSSES = ("loss_vfl", "loss_bbox", "loss_dfl")
# The order of a batch's tensors; an evaluation batch holds the first three alone.
EVAL_FIELDS = ("image", "scale_factor", "im_id")
TRAIN_FIELDS = (*EVAL_FIELDS, "gt_bbox", "gt_class", "pad_gt_mask")


class DetectionNetwork(nn.Layer):
    """Wraps ppdet's `PicoDet` for `paddle.Model`.

    The detector's own children are this layer's children, so that the names in `state_dict` are PaddleDetection's
    (`backbone.conv1.conv.weight`) and checkpoints pass in both directions.

    Args:
        detector: what `ppdet.core.workspace.create("PicoDet")` makes.
    """

    def __init__(self, detector: nn.Layer) -> None:
        super().__init__()
        for name, child in detector.named_children():
            self.add_sublayer(name, child)
        # Past nn.Layer's registry: as a sublayer it would double every parameter's name.
        object.__setattr__(self, "detector", detector)
        self.epoch = 0  # PicoHeadV2 changes its label assigner at an epoch; SetEpoch keeps this right
        self.max_boxes = int(self.head.nms.keep_top_k)

    def input_spec(self) -> list[InputSpec]:
        """The specs that `paddle.Model(network, inputs=...)` needs to tell inputs from labels: all are inputs."""
        shapes = {"image": [None, 3, None, None], "scale_factor": [None, 2], "im_id": [None, 1],
                  "gt_bbox": [None, None, 4], "gt_class": [None, None, 1], "pad_gt_mask": [None, None, 1]}
        dtypes = {"im_id": "int64", "gt_class": "int64"}
        return [InputSpec(shapes[name], dtypes.get(name, "float32"), name) for name in TRAIN_FIELDS]

    @contextlib.contextmanager
    def export_mode(self, height: int, width: int, *, post_process: bool = True,
                  nms: bool = True) -> Iterator[tuple[nn.Layer, list[dict[str, InputSpec | None]]]]:
        """Gives the detector as it is to be exported, and its inputs: one image of a fixed size, as a phone gives it.

        Args:
            height: pixels.
            width: pixels.
            post_process: boxes and scores come out; the heads' raw maps otherwise.
            nms: the boxes are suppressed and scaled to the original image, for which the network takes `scale_factor`.
        """
        # ppdet asks for a scale factor where it does not use it, and an input that is not used cannot be exported.
        scale = InputSpec([1, 2], "float32", "scale_factor") if post_process and nms else None
        specs = {"image": InputSpec([1, 3, height, width], "float32", "image"), "scale_factor": scale}
        before = self.detector.export_post_process, self.detector.export_nms
        self.detector.export_post_process, self.detector.export_nms = post_process, nms
        try:
            yield self.detector, [specs]
        finally:  # an evaluation needs both
            self.detector.export_post_process, self.detector.export_nms = before

    def prediction_layers(self) -> list[str]:
        """Structured names of the weights that end the network: nothing but the decoding of boxes follows them.

        They are the convolutions that belong to the head itself, and those that end its score alignment. Few and
        sensitive, they stay dense in the published sparse models.
        """
        owners = [("head", self.head)]
        owners += [(f"head.cls_align.{name}", block)
                   for name, block in getattr(self.head, "cls_align", nn.LayerList()).named_children()]
        return [f"{prefix}.{name}.weight" for prefix, owner in owners for name, child in owner.named_children()
                if isinstance(child, nn.Conv2D)]

    def forward(self, image: paddle.Tensor, scale_factor: paddle.Tensor, im_id: paddle.Tensor,
                gt_bbox: paddle.Tensor | None = None, gt_class: paddle.Tensor | None = None,
                pad_gt_mask: paddle.Tensor | None = None) -> list[paddle.Tensor]:
        """Losses of a training batch, boxes of an evaluation batch.

        Args:
            image: [b, 3, h, w], normalized.
            scale_factor: [b, 2], network pixels per image pixel, height first.
            im_id: [b, 1], COCO image ids.
            gt_bbox: [b, g, 4], x1 y1 x2 y2 in network pixels, padded with zeros to the batch's most boxes.
            gt_class: [b, g, 1], class indices.
            pad_gt_mask: [b, g, 1], 1 where a box is real.

        Returns:
            In training three scalars (varifocal, box and distribution focal loss). In evaluation the boxes
            [b, max_boxes, 6] (class, score, x1, y1, x2, y2 in image pixels; class -1 fills up) and im_id.
        """
        self.detector.training = self.training
        inputs = {"image": image, "scale_factor": scale_factor, "im_id": im_id}
        if not self.training:
            found = self.detector(inputs)
            return [self._pad(found["bbox"], found["bbox_num"]), im_id]
        inputs.update(epoch_id=self.epoch, pad_gt_mask=pad_gt_mask, gt_bbox=gt_bbox, gt_class=gt_class)
        if not hasattr(self.head, "static_assigner"):  # SimOTA (PicoHead) wants each image's boxes without padding
            assert pad_gt_mask is not None
            assert gt_bbox is not None
            assert gt_class is not None
            counts = pad_gt_mask.sum(axis=[1, 2]).numpy().astype(int)
            inputs["gt_bbox"] = [boxes[:n] for boxes, n in zip(gt_bbox, counts)]
            inputs["gt_class"] = [classes[:n] for classes, n in zip(gt_class, counts)]
        losses = self.detector(inputs)
        return [losses[name].reshape([1]) for name in LOSSES]

    def _pad(self, boxes: paddle.Tensor, counts: paddle.Tensor) -> paddle.Tensor:
        """Boxes of a batch in one tensor of a shape that is the same on every rank, so that it can be gathered."""
        per_image = counts.numpy().astype(int)
        padded = np.full((len(per_image), self.max_boxes, 6), -1, dtype=np.float32)
        parts = np.split(boxes.numpy(), np.cumsum(per_image)[:-1])
        for row, part, count in zip(padded, parts, per_image):
            row[:count] = part[:count]
        return paddle.to_tensor(padded)


class DetectionLoss:
    """The `loss` of `paddle.Model.prepare`: passes the network's own losses on.

    In evaluation the network gives boxes and no loss; hapi insists on a number, so it gets NaN.
    """

    def __call__(self, *outputs: paddle.Tensor) -> list[paddle.Tensor]:
        """Takes what the network gave."""
        if len(outputs) == len(LOSSES):
            return list(outputs)
        return [paddle.full([1], float("nan"))]


class SetEpoch(paddle.callbacks.Callback):
    """Tells a `DetectionNetwork` the epoch, as ppdet's trainer does."""

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Sets `network.epoch`."""
        self.model.network.epoch = epoch


class _SyncBatchNorm(nn.SyncBatchNorm):
    """Paddle's, but in evaluation the plain operator: no other can be exported to where there is one device."""

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        if self.training:
            return super().forward(x)
        return nn.functional.batch_norm(x, self._mean, self._variance, self.weight, self.bias, epsilon=self._epsilon,
                                        data_format=self._data_format)


def convert_sync_batch_norm(detector: nn.Layer) -> nn.Layer:
    """Has a detector's batch norms take their statistics from the batches of all ranks; the names stay."""
    detector = nn.SyncBatchNorm.convert_sync_batchnorm(detector)
    for layer in detector.sublayers():
        if isinstance(layer, nn.SyncBatchNorm):
            layer.__class__ = _SyncBatchNorm  # Paddle's conversion makes no other
    return detector


def build_network(registry: Any) -> DetectionNetwork:
    """Makes the network that a loaded configuration describes (see `detection.config.load`).

    With `norm_type: sync_bn` ranks on GPUs normalize their batches as one.

    Raises:
        InputError: it is no PicoDet, or cannot be made.
    """
    if registry["architecture"] != "PicoDet":
        raise InputError(f"architecture is PicoDet, got {registry['architecture']!r}")
    with _bounded():
        detector = create("PicoDet")
    # As ppdet's trainer does; on a CPU there is no such kernel.
    several_gpus = paddle.distributed.get_world_size() > 1 and paddle.get_device().startswith("gpu")
    if registry.get("norm_type") == "sync_bn" and several_gpus:
        detector = convert_sync_batch_norm(detector)
    return DetectionNetwork(detector)


@contextlib.contextmanager
def _bounded() -> Iterator[None]:
    """Ends the making of a network that would fill the machine, before it does: a digit too many in a recipe."""
    make, made = nn.Layer.create_parameter, [0, 0]

    def counted(layer: nn.Layer, shape: Any, *arguments: Any, **keywords: Any) -> Any:
        made[:] = made[0] + 1, made[1] + math.prod(shape)
        if made[0] > _MOST_ARRAYS or made[1] > _MOST_WEIGHTS:
            raise InputError(f"PicoDet: the recipe asks for more than {_MOST_WEIGHTS:,} weights or {_MOST_ARRAYS:,} "
                             f"arrays of them; the array at which it ended has shape {list(shape)}")
        return make(layer, shape, *arguments, **keywords)

    nn.Layer.create_parameter = counted
    try:
        yield
    finally:
        nn.Layer.create_parameter = make


def build_optimizer(network: DetectionNetwork, steps_per_epoch: int) -> paddle.optimizer.Optimizer:
    """Makes the optimizer and its learning-rate schedule from the loaded `LearningRate` and `OptimizerBuilder`."""
    with blaming("OptimizerBuilder or LearningRate"):
        rate = create("LearningRate")
        for schedule in rate.schedulers:
            epochs = max(getattr(schedule, "epochs", None) or 0, getattr(schedule, "max_epochs", 0))
            steps = max(getattr(schedule, "steps", 0), epochs * steps_per_epoch)
            if steps > _MOST_STEPS:
                raise InputError(f"LearningRate: {type(schedule).__name__} goes over {steps:,} steps; ppdet holds a "
                                 f"number for each in memory, and {_MOST_STEPS:,} are the most")
        return create("OptimizerBuilder")(rate(steps_per_epoch), network)
