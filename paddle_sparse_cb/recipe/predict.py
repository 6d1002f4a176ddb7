"""Detects objects in images: with the trained network of a recipe, or with an exported model."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from ..deploy.runtimes import RUNTIMES, Runnable, open_model
from ..detection import config, infer_config
from ..detection.datasets.labels import class_names
from ..detection.infer_config import InferConfig, make_infer_config, read_infer_config
from ..detection.network import DetectionNetwork, build_network
from ..detection.predict import Box, Preprocessor, check_pixels, find_boxes, read_image
from ..detection.weights import load_matching, read_weights
from ..errors import InputError
from ..pruning.paddleslim_masks import apply_paddleslim_masks
from ..utils.distributed import rank_zero_info
from ..utils.validation import check_fraction
from .build import naming_recipe
from .catalogue import find_recipe
from .commands import trained_weights
from .schema import Recipe, read_recipe

_MODEL = "model.pdmodel"


class Detector:
    """Finds objects in images.

    Args:
        path: a recipe (a YAML file, or the name of a packaged one), whose trained weights are used; or an exported
            model: a file with a suffix of `deploy.runtimes.RUNTIMES`, such as `inference/model.pdmodel`, its path
            without the suffix, or the folder that contains `model.pdmodel`. `infer_cfg.yml` must be beside the model
            or in a folder `inference` beside it; the recipe is not needed then.
        options: with a recipe: values that replace the recipe's, such as `["weights=mine.pdparams"]`.
        export: with a recipe: `best` or `last`, the checkpoint to use; by default the one that was exported.
        slim_config: with a recipe: a file to merge over it.
        threads: with an exported model: threads of the runtime.

    Attributes:
        labels: the names of the classes.
        threshold: the least score that `predict` uses by default.

    Raises:
        InputError: there is no such recipe or model, it is damaged, or the recipe has not been trained.

    Examples:
        >>> import numpy as np
        >>> weights = "weights=sample:picodet_s_416_lcnet"
        >>> detector = Detector("picodet_s_416_coco_lcnet", options=[weights])  # doctest: +ELLIPSIS
        weights of sample:picodet_s_416_lcnet: 443 arrays loaded; ...
        >>> detector.labels[:3]
        ('person', 'bicycle', 'car')
        >>> black = np.zeros([64, 48, 3], "uint8")
        >>> [(box.label, box.score, box.box) for box in detector.predict(black)]
        []
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        options: Sequence[str] = (),
        export: str | None = None,
        slim_config: str | None = None,
        threads: int = 1,
    ) -> None:
        model = find_model(path)
        if model is None:
            recipe = read_recipe(find_recipe(os.fspath(path)), slim_config, options)
            self._open(*_open_recipe(recipe, export))
        else:
            self._open(open_model(model, threads), read_infer_config(_config_file(model)))

    @classmethod
    def of_recipe(cls, recipe: Recipe, export: str | None = None) -> Detector:
        """Opens the trained network of a recipe that was read."""
        detector = cls.__new__(cls)
        detector._open(*_open_recipe(recipe, export))
        return detector

    def _open(self, model: Runnable, settings: InferConfig) -> None:
        self._model, self._settings, self._preprocess = model, settings, Preprocessor(settings)
        self.labels, self.threshold = settings.labels, settings.threshold

    def predict(self, image: str | os.PathLike[str] | np.ndarray, threshold: float | None = None) -> list[Box]:
        """Finds the objects in an image.

        Args:
            image: the path of an image file, or the pixels [height, width, 3] as uint8 in RGB.
            threshold: the least score, from 0 to 1; by default `self.threshold`.

        Returns:
            The boxes in pixels of the image, those of the highest scores first. The image of a file is turned as its
            EXIF orientation says.

        Raises:
            InputError: the image cannot be read, or the model does not fit it.
        """
        pixels = read_image(Path(image)) if isinstance(image, (str, os.PathLike)) else check_pixels(image)
        prepared = self._preprocess(pixels)
        inputs = _select_inputs(prepared, self._model.inputs)
        least = self.threshold if threshold is None else check_fraction("threshold", threshold)
        return find_boxes(self._model.run(inputs), prepared, self._settings, pixels.shape[:2], least)


def _select_inputs(prepared: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Returns those of the prepared arrays that are inputs of a model."""
    for name, shape in shapes.items():
        if name not in prepared:
            raise InputError(f"the model has an input {name!r}; known are {', '.join(prepared)}")
        found = prepared[name].shape
        if len(found) != len(shape) or any(size not in (-1, made) for size, made in zip(shape, found)):
            raise InputError(
                f"the transforms make {name} of shape {list(found)}, and the model needs {list(shape)}: see Resize in "
                f"{infer_config.NAME} or the recipe's reader"
            )
    return {name: prepared[name] for name in shapes}


def find_model(path: str | os.PathLike[str]) -> Path | None:
    """Returns the file of an exported model, or None for the path or the name of a recipe.

    Raises:
        InputError: a folder without a model, or weights without their recipe.
    """
    path = Path(path)
    if path.is_dir():
        for model in (path / _MODEL, path / "inference" / _MODEL):
            if model.is_file():
                return model
        raise InputError(f"{path}: neither {_MODEL} nor inference/{_MODEL} is in this folder")
    if path.suffix == ".pdparams":
        raise InputError(f"{path}: the network of these weights is needed too: RECIPE ... -o weights={path}")
    if path.suffix == ".pdiparams":
        return path.with_suffix(".pdmodel")
    if path.suffix in (*RUNTIMES, ".nb"):
        return path
    prefix = path.with_name(f"{path.name}.pdmodel") if path.name else path
    return prefix if prefix.is_file() else None


def _config_file(model: Path) -> Path:
    beside = model.with_name(infer_config.NAME)
    below = model.parent / "inference" / infer_config.NAME
    return below if below.is_file() and not beside.is_file() else beside


@naming_recipe
def _open_recipe(recipe: Recipe, export: str | None) -> tuple[Runnable, InferConfig]:
    given = recipe.content.get("weights") or ""
    source = given if given.startswith("sample:") else str(trained_weights(recipe, export))
    settings = make_infer_config(recipe.content, _class_names(recipe), recipe.input_size)
    if recipe.content.get("use_gpu") is False:
        paddle.set_device("cpu")
    with config.convert_errors(recipe.files):
        network = build_network(config.load(recipe.content, recipe.files))
    with config.prefix_errors(source):
        arrays, _ = apply_paddleslim_masks(read_weights(source))
    loaded = load_matching(network, arrays, source)
    if loaded.untrained_heads:
        raise InputError(str(loaded))
    if loaded.missing_keys:
        rank_zero_info(str(loaded))
    return NetworkModel(network, recipe.input_size), settings


def _class_names(recipe: Recipe) -> tuple[str, ...]:
    """The class names of an exported recipe, whose data may no longer be there; else those of its data set."""
    exported = recipe.exported.with_name(infer_config.NAME)
    if exported.is_file():
        labels = read_infer_config(exported).labels
        if len(labels) == recipe.content["num_classes"]:
            return labels
    return class_names(recipe.content)


class NetworkModel:
    """A network as a `Runnable`.

    Args:
        network: the network; it is put into evaluation mode.
        size: height and width of its input.
    """

    def __init__(self, network: DetectionNetwork, size: tuple[int, int]) -> None:
        self._network = network
        network.eval()
        if paddle.get_device() == "cpu":
            from ..detection.depthwise import use_fast_depthwise  # here, because it needs numba

            use_fast_depthwise(network)
        self.inputs: dict[str, tuple[int, ...]] = {"image": (1, 3, *size), "scale_factor": (1, 2)}

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Computes the boxes of an image: [max_boxes, 6], padded with class -1."""
        tensors: list[Any] = [paddle.to_tensor(inputs[name]) for name in self.inputs]
        with paddle.no_grad():
            boxes, _ = self._network(*tensors, paddle.zeros([1, 1], "int64"))
        return {"boxes": boxes.numpy()[0]}
