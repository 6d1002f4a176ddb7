"""A ppdet detector as an `nn.Layer` for `paddle.Model`: takes ordered tensors, returns losses or boxes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import paddle
from paddle import nn
from paddle.static import InputSpec

from ..errors import InputError
from . import compat
from .config import convert_errors, create

_MAX_STEPS = 20_000_000  # of a learning-rate schedule

LOSS_NAMES = ("loss_vfl", "loss_bbox", "loss_dfl")  # in the order of the network's outputs in training
# Tensors of a batch, in order; an evaluation batch consists of the first three.
EVAL_FIELDS = ("image", "scale_factor", "im_id")
TRAIN_FIELDS = (*EVAL_FIELDS, "gt_bbox", "gt_class", "pad_gt_mask")


class DetectionNetwork(nn.Layer):
    """Wraps ppdet's `PicoDet` for `paddle.Model`.

    The detector's children become children of this layer, so that `state_dict` has PaddleDetection's names
    (`backbone.conv1.conv.weight`) and checkpoints can be exchanged with PaddleDetection.

    Args:
        detector: a `PicoDet` made by `detection.config.create`.
    """

    def __init__(self, detector: nn.Layer) -> None:
        super().__init__()
        for name, child in detector.named_children():
            self.add_sublayer(name, child)
        # Bypasses nn.Layer.__setattr__: as a sublayer, the detector would list every parameter a second time.
        object.__setattr__(self, "detector", detector)
        self.epoch = 0  # PicoHeadV2 switches its label assigner at an epoch; set by SetEpoch
        self.max_boxes = int(self.head.nms.keep_top_k)

    def input_spec(self) -> list[InputSpec]:
        """Returns the `inputs` of `paddle.Model`: all tensors of a training batch, as the network computes its loss."""
        shapes = {
            "image": [None, 3, None, None],
            "scale_factor": [None, 2],
            "im_id": [None, 1],
            "gt_bbox": [None, None, 4],
            "gt_class": [None, None, 1],
            "pad_gt_mask": [None, None, 1],
        }
        dtypes = {"im_id": "int64", "gt_class": "int64"}
        return [InputSpec(shapes[name], dtypes.get(name, "float32"), name) for name in TRAIN_FIELDS]

    @contextlib.contextmanager
    def export_mode(
        self, height: int, width: int, *, post_process: bool = True, nms: bool = True
    ) -> Iterator[tuple[nn.Layer, list[dict[str, InputSpec | None]]]]:
        """Configures the detector for export and restores it afterwards.

        Args:
            height: input height in pixels.
            width: input width in pixels.
            post_process: outputs decoded boxes and scores; otherwise the raw maps of the heads.
            nms: applies non-maximum suppression and scales the boxes to the original image, for which the exported
                network takes `scale_factor` as a second input.

        Yields:
            The detector, and its input specs for one image of the given size.
        """
        # ppdet reads a scale factor even if it does not use it, and an unused input cannot be exported.
        scale = InputSpec([1, 2], "float32", "scale_factor") if post_process and nms else None
        specs = {"image": InputSpec([1, 3, height, width], "float32", "image"), "scale_factor": scale}
        before = self.detector.export_post_process, self.detector.export_nms
        self.detector.export_post_process, self.detector.export_nms = post_process, nms
        try:
            yield self.detector, [specs]
        finally:  # evaluation needs both
            self.detector.export_post_process, self.detector.export_nms = before

    def suppress(self, boxes: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """Applies the head's non-maximum suppression to outputs of a detector that was exported without it.

        Args:
            boxes: [1, n, 4], x1 y1 x2 y2 in network pixels.
            scores: [1, classes, n].

        Returns:
            [kept, 6]: class, score, x1, y1, x2, y2, with the highest scores first.
        """
        kept = self.head.nms(paddle.to_tensor(boxes), paddle.to_tensor(scores))[0].numpy()
        return kept[np.argsort(-kept[:, 1], kind="stable")]

    def prediction_layers(self) -> list[str]:
        """Structured names of the weights of the prediction layers, which only the decoding of boxes follows.

        These are the convolutions that belong to the head itself and the last ones of its score alignment. They are
        few and sensitive, and stay dense in the published sparse models.
        """
        owners = [("head", self.head)]
        owners += [
            (f"head.cls_align.{name}", block)
            for name, block in getattr(self.head, "cls_align", nn.LayerList()).named_children()
        ]
        return [
            f"{prefix}.{name}.weight"
            for prefix, owner in owners
            for name, child in owner.named_children()
            if isinstance(child, nn.Conv2D)
        ]

    def stage_end_squeezes(self) -> list[str]:
        """Structured names of the weights in the squeeze-and-excitation blocks whose output the neck reads directly.

        These are the last ones of the stages of an ESNet or LCNet, and stay dense in the published sparse models.
        """
        stages = [block for name, block in self.backbone.named_children() if name.startswith("blocks")]
        ends = [stage[-1] for stage in stages]
        maps = getattr(self.backbone, "feature_maps", ())
        ends += [block for i, block in enumerate(getattr(self.backbone, "_block_list", ())) if i + 2 in maps]
        return [
            f"backbone.{name}.{part}.weight"
            for name, block in self.backbone.named_sublayers()
            if any(block is end for end in ends)
            for part, layer in block.named_sublayers()
            if isinstance(layer, nn.Conv2D) and part.split(".")[0] in ("se", "_se")
        ]

    def forward(
        self,
        image: paddle.Tensor,
        scale_factor: paddle.Tensor,
        im_id: paddle.Tensor,
        gt_bbox: paddle.Tensor | None = None,
        gt_class: paddle.Tensor | None = None,
        pad_gt_mask: paddle.Tensor | None = None,
    ) -> list[paddle.Tensor]:
        """Computes the losses of a training batch or the boxes of an evaluation batch.

        Without `gt_bbox`, a training batch has no losses: it is for a `Distillation` that compares layers.

        Args:
            image: [b, 3, h, w], normalized.
            scale_factor: [b, 2], network pixels per image pixel, height first.
            im_id: [b, 1], COCO image ids.
            gt_bbox: [b, g, 4], x1 y1 x2 y2 in network pixels, padded with zeros to the largest number of boxes.
            gt_class: [b, g, 1], class indices.
            pad_gt_mask: [b, g, 1], 1 for a box and 0 for padding.

        Returns:
            In training the losses `LOSS_NAMES`, each of shape [1], or without boxes the scores and distances that the
            head predicts. In evaluation the boxes [b, max_boxes, 6] (class, score, x1, y1, x2, y2 in image pixels;
            class -1 is padding) and im_id.
        """
        self.detector.training = self.training
        inputs = {"image": image, "scale_factor": scale_factor, "im_id": im_id}
        if not self.training:
            found = self.detector(inputs)
            return [self.pad_boxes(found["bbox"], found["bbox_num"]), im_id]
        if gt_bbox is None:
            return list(paddle.utils.flatten(self.head(self.neck(self.backbone(inputs)))[:2]))
        inputs.update(epoch_id=self.epoch, pad_gt_mask=pad_gt_mask, gt_bbox=gt_bbox, gt_class=gt_class)
        if not hasattr(self.head, "static_assigner"):  # SimOTA (PicoHead) takes the boxes of each image unpadded
            assert pad_gt_mask is not None
            assert gt_bbox is not None
            assert gt_class is not None
            counts = pad_gt_mask.sum(axis=[1, 2]).numpy().astype(int)
            inputs["gt_bbox"] = [boxes[:n] for boxes, n in zip(gt_bbox, counts)]
            inputs["gt_class"] = [classes[:n] for classes, n in zip(gt_class, counts)]
        losses = self.detector(inputs)
        return [losses[name].reshape([1]) for name in LOSS_NAMES]

    def select_boxes(self, boxes: paddle.Tensor, scores: paddle.Tensor, scale_factor: paddle.Tensor) -> paddle.Tensor:
        """Applies non-maximum suppression to the outputs of a network that was exported without it.

        Args:
            boxes: [b, n, 4], x1 y1 x2 y2 in network pixels.
            scores: [b, classes, n].
            scale_factor: [b, 2], network pixels per image pixel, height first.

        Returns:
            The boxes as `forward` returns them in evaluation.
        """
        return self.pad_boxes(*self.head.post_process((scores, boxes), scale_factor))

    def pad_boxes(self, boxes: paddle.Tensor, counts: paddle.Tensor) -> paddle.Tensor:
        """Pads the boxes of a batch to one tensor, whose shape is the same on every rank so that it can be gathered."""
        per_image = counts.numpy().astype(int)
        padded = np.full((len(per_image), self.max_boxes, 6), -1, dtype=np.float32)
        parts = np.split(boxes.numpy(), np.cumsum(per_image)[:-1])
        for row, part, count in zip(padded, parts, per_image):
            row[:count] = part[:count]
        return paddle.to_tensor(padded)


class DetectionLoss:
    """The `loss` of `paddle.Model.prepare`: returns the losses that the network has computed.

    In evaluation the network returns boxes and no loss; hapi requires a number, which is NaN.

    Attributes:
        names: names of the losses, in order.
    """

    names = LOSS_NAMES

    def __call__(self, *outputs: paddle.Tensor) -> list[paddle.Tensor]:
        """Takes the outputs of the network."""
        if len(outputs) == len(LOSS_NAMES):
            return list(outputs)
        return [paddle.full([1], float("nan"))]


class SetEpoch(paddle.callbacks.Callback):
    """Sets the epoch of a `DetectionNetwork`, as ppdet's trainer does."""

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Sets `network.epoch`."""
        self.model.network.epoch = epoch


def build_network(registry: Any) -> DetectionNetwork:
    """Builds the network of a loaded configuration (`detection.config.load`).

    With `norm_type: sync_bn`, batch norms use the statistics of all ranks if these run on GPUs.

    Raises:
        InputError: the architecture is not PicoDet, or the network cannot be built or is too large.
    """
    if registry["architecture"] != "PicoDet":
        raise InputError(f"architecture must be PicoDet, got {registry['architecture']!r}")
    with compat.limit_parameters():
        detector = create("PicoDet")
    # As in ppdet's trainer; Paddle has no such kernel for CPUs.
    several_gpus = paddle.distributed.get_world_size() > 1 and paddle.get_device().startswith("gpu")
    if registry.get("norm_type") == "sync_bn" and several_gpus:
        detector = compat.convert_sync_batch_norm(detector)
    return DetectionNetwork(detector)


def build_optimizer(network: DetectionNetwork, steps_per_epoch: int) -> paddle.optimizer.Optimizer:
    """Builds the optimizer and learning-rate schedule of the loaded `OptimizerBuilder` and `LearningRate`.

    Raises:
        InputError: they cannot be built, or the schedule has too many steps.
    """
    with convert_errors("OptimizerBuilder or LearningRate"):
        rate = create("LearningRate")
        for schedule in rate.schedulers:
            epochs = max(getattr(schedule, "epochs", None) or 0, getattr(schedule, "max_epochs", 0))
            steps = max(getattr(schedule, "steps", 0), epochs * steps_per_epoch)
            if steps > _MAX_STEPS:
                raise InputError(
                    f"LearningRate: {type(schedule).__name__} has {steps:,} steps, at most "
                    f"{_MAX_STEPS:,} are allowed, because ppdet keeps a value for each in memory"
                )
        return create("OptimizerBuilder")(rate(steps_per_epoch), network)
