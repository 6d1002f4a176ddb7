"""From an image to the inputs of a detector, and from its outputs to boxes with class names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from .datasets.images import check_image, check_size
from .infer_config import InferConfig


@dataclass(frozen=True)
class Box:
    """An object that was found in an image.

    Attributes:
        label: the name of its class.
        score: from 0 to 1.
        box: x1, y1, x2, y2 in pixels of the image, within it.
    """

    label: str
    score: float
    box: tuple[float, float, float, float]

    def to_dict(self) -> dict[str, Any]:
        """Returns the box as `--json` prints it; coordinates have two digits after the point."""
        return {"class": self.label, "score": round(self.score, 4), "box": [round(value, 2) for value in self.box]}


def read_image(path: Path) -> np.ndarray:
    """Reads an image file, turned as its EXIF orientation says.

    Returns:
        [height, width, 3], uint8, RGB.

    Raises:
        InputError: the file is missing, or no image that can be decoded (`check_image`).
    """
    import cv2

    if not path.is_file():  # reading from a pipe or a device would not end
        raise InputError(f"{path}: no such image file")
    content = path.read_bytes()
    try:
        check_image(content)
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except (ValueError, cv2.error) as error:
        raise InputError(f"{path}: {' '.join(str(error).split())}") from None
    if pixels is None:
        raise InputError(f"{path}: OpenCV cannot decode this image")
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))


def check_pixels(image: object) -> np.ndarray:
    """Returns an image that is given as an array.

    Raises:
        InputError: it is not an array [height, width, 3] of uint8, or has too many pixels.
    """
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise InputError(
            f"an image must be a path or an array [height, width, 3] of uint8 in RGB, "
            f"got {pixels.dtype} {list(pixels.shape)}"
        )
    try:
        check_size(pixels.shape[1], pixels.shape[0])
    except ValueError as error:
        raise InputError(str(error)) from None
    return pixels


_INPUTS = ("image", "scale_factor", "im_shape")


class Preprocessor:
    """Turns images into inputs of a detector, by ppdet's transforms.

    Args:
        config: the transforms.
    """

    def __init__(self, config: InferConfig) -> None:
        self._transforms = config.transforms()

    def __call__(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Transforms an image.

        Args:
            image: [height, width, 3], uint8, RGB; it is not changed.

        Returns:
            `image` [1, 3, h, w]; `scale_factor` [1, 2], network pixels per image pixel, height first; and `im_shape`
            [1, 2], h and w. All float32.

        Raises:
            InputError: the transforms cannot be applied.
        """
        import cv2

        size = np.array(image.shape[:2], dtype=np.float32)
        sample: dict[str, Any] = {
            "image": image.copy(),
            "h": image.shape[0],
            "w": image.shape[1],
            "im_shape": size,
            "scale_factor": np.ones(2, dtype=np.float32),
        }
        try:
            for transform in self._transforms:
                sample = transform(sample)
        except (cv2.error, AttributeError, LookupError, MemoryError, TypeError, ValueError) as error:
            raise InputError(f"Preprocess: {type(error).__name__}: {' '.join(str(error).split())}") from None
        return {name: np.ascontiguousarray(sample[name], np.float32)[None] for name in _INPUTS}


def find_boxes(
    outputs: Mapping[str, np.ndarray],
    inputs: Mapping[str, np.ndarray],
    config: InferConfig,
    size: Sequence[int],
    threshold: float,
) -> list[Box]:
    """Turns the outputs of a detector for one image into boxes, those of the highest scores first.

    Args:
        outputs: of a program with NMS, boxes [n, 6] of class, score, x1, y1, x2, y2 in pixels of the image, and
            optionally how many of them count; of one without NMS, boxes [1, m, 4] in pixels of the network and scores
            [1, classes, m].
        inputs: what `Preprocessor` made of the image.
        config: the class names and the settings of NMS.
        size: height and width of the image.
        threshold: the least score.

    Raises:
        InputError: the outputs are neither of these.
    """
    arrays = list(outputs.values())
    complete = [array for array in arrays if array.ndim == 2 and array.shape[1] == 6]
    counts = [array for array in arrays if array.size == 1 and array.dtype.kind in "iu"]
    if len(complete) == 1:
        rows = complete[0][: int(counts[0].item())] if counts else complete[0]
    elif len(arrays) == 2 and sorted(array.ndim for array in arrays) == [3, 3]:
        rows = _suppress(arrays, inputs["scale_factor"][0], config)
    else:
        found = ", ".join(str(list(array.shape)) for array in arrays)
        raise InputError(f"the outputs must be boxes, as exported with `export: {{post_process: true}}`, got {found}")
    if not np.isfinite(rows).all():
        raise InputError("the model computes boxes that are not finite: its weights are damaged")
    return _named(rows, config.labels, size, threshold)


def _suppress(arrays: list[np.ndarray], scale: np.ndarray, config: InferConfig) -> np.ndarray:
    """Applies non-maximum suppression as the network does: all boxes and their scores to boxes [n, 6]."""
    import paddle
    from ppdet.modeling.layers import MultiClassNMS

    boxes, scores = arrays if arrays[0].shape[2] == 4 else arrays[::-1]
    if boxes.shape[2] != 4 or scores.shape[2] != boxes.shape[1]:
        raise InputError(f"boxes must be [1, m, 4] and scores [1, classes, m], got {[one.shape for one in arrays]}")
    in_image = boxes / np.array([scale[1], scale[0], scale[1], scale[0]], dtype=np.float32)
    settings = {key: value for key, value in config.nms.items() if key != "name"}
    try:
        found, _, _ = MultiClassNMS(**settings)(paddle.to_tensor(in_image), paddle.to_tensor(scores))
    except (TypeError, ValueError) as error:
        raise InputError(f"NMS: {' '.join(str(error).split())[-300:]}") from None
    rows: np.ndarray = found.numpy()
    return rows


def _named(rows: np.ndarray, labels: Sequence[str], size: Sequence[int], threshold: float) -> list[Box]:
    height, width = size
    boxes = []
    for label, score, *corners in rows.tolist():
        if label < 0 or score < threshold:  # class -1 is padding
            continue
        if label >= len(labels):
            raise InputError(f"the model found class {int(label)}, but label_list has {len(labels)} names")
        x1, y1, x2, y2 = (min(max(value, 0.0), float(most)) for value, most in zip(corners, (width, height) * 2))
        if x1 < x2 and y1 < y2:  # a box outside of the image has no area
            boxes.append(Box(labels[int(label)], score, (x1, y1, x2, y2)))
    return sorted(boxes, key=lambda box: -box.score)
