"""Recipes that fit a data set: the settings, and the text of the files with the reason for each."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from string import Template

from ..detection.datasets.summary import DataSummary
from ..utils.text import one_line
from .catalogue import FOLDER

_SIDES = (256, 320, 416, 512, 640)  # pixels of the network's input, as PaddleDetection has them for PicoDet
_LEAST_OBJECT = 16  # pixels: two cells of the finest level of the heads, whose stride is 8
_SPREAD = (-64, -32, 0, 32, 64)  # pixels between the sizes of the training, as PaddleDetection has them
_LEAST_FOR_ATSS = 192  # pixels: the label assigner of the first epochs needs nine cells in each level
_BATCH = {"cpu": 8, "gpu": 32}
_STEPS = {"cpu": 300, "gpu": 2000}  # optimizer steps of each training
_EPOCHS = 12, 150  # at least and at most
_RATE = 0.001  # for batches of 8, as in picodet_s_416_trees
_RATIO = 0.75
_UPDATES = 30  # of the masks, at most


@dataclass(frozen=True)
class Settings:
    """The settings of the two recipes.

    Attributes:
        side: height and width of the network's input in pixels.
        sides: those of the training.
        batch: images of an optimizer step.
        epochs: epochs of each of the two trainings.
        steps: optimizer steps of an epoch.
        rate: the learning rate.
        warmup: optimizer steps until it is reached.
        snapshot: epochs between two evaluations.
        workers: processes that load images.
    """

    side: int
    sides: tuple[int, ...]
    batch: int
    epochs: int
    steps: int
    rate: float
    warmup: int
    snapshot: int
    workers: int

    @property
    def pruning_epochs(self) -> int:
        """Epochs in which the ratio rises; half of them."""
        return self.epochs // 2


def choose_settings(train: DataSummary, device: str, cores: int) -> Settings:
    """Fits the settings to a data set.

    Args:
        train: the images for the training.
        device: `cpu` or `gpu`.
        cores: processors of the machine.
    """
    longest = math.ceil(max(train.width, train.height) / 32) * 32  # larger inputs would add nothing but time
    allowed = [side for side in _SIDES if side <= longest] or [min(longest, _SIDES[0])]
    side = next((side for side in allowed if train.small_share * side >= _LEAST_OBJECT), allowed[-1])
    sides = tuple(side + more for more in _SPREAD) if side + min(_SPREAD) >= _LEAST_FOR_ATSS else (side,)
    batch = max(1, min(_BATCH[device], train.images // 4))
    steps = train.images // batch
    epochs = min(max(math.ceil(_STEPS[device] / steps), _EPOCHS[0]), _EPOCHS[1])
    return Settings(
        side,
        sides,
        batch,
        epochs,
        steps,
        round(_RATE * math.sqrt(batch / _BATCH["cpu"]), 6),
        max(1, min(20, epochs * steps // 10)),
        max(1, epochs // 6),
        0 if cores <= 2 else min(4, cores - 1),
    )


@dataclass(frozen=True)
class DataPaths:
    """Where the data of a recipe are.

    Attributes:
        folder: `dataset_dir`.
        images: `image_dir` of the training and of the evaluation.
        annotations: `anno_path` of both.
    """

    folder: str
    images: tuple[str, str]
    annotations: tuple[str, str]


def dense_recipe(name: str, train: DataSummary, val: DataSummary, paths: DataPaths, settings: Settings) -> str:
    """Returns the text of the dense recipe."""
    count = len(train.boxes)
    return _template("dense").substitute(
        name=name,
        classes=f"{count} class{'es'[: 2 * (count > 1)]}",
        class_count=count,
        class_names=_comment(", ".join(train.boxes)),
        train_images=f"{train.images:,}",
        train_boxes=f"{sum(train.boxes.values()):,}",
        val_images=f"{val.images:,}",
        val_boxes=f"{sum(val.boxes.values()):,}",
        workers=settings.workers,
        folder=_quoted(paths.folder),
        train_folder=_quoted(paths.images[0]),
        train_annotations=_quoted(paths.annotations[0]),
        val_folder=_quoted(paths.images[1]),
        val_annotations=_quoted(paths.annotations[1]),
        epochs=settings.epochs,
        steps=settings.steps,
        all_steps=f"{settings.epochs * settings.steps:,}",
        snapshot=settings.snapshot,
        rate=f"{settings.rate:g}",
        warmup=settings.warmup,
        sides=list(settings.sides),
        batch=settings.batch,
        width=train.width,
        height=train.height,
        share=f"{train.small_share:.0%}",
        side=settings.side,
        pixels=round(train.small_share * settings.side),
        least=_LEAST_OBJECT,
        network=_network(settings),
    )


def sparse_recipe(name: str, settings: Settings) -> str:
    """Returns the text of the sparse recipe, which starts from the dense one."""
    return _template("sparse").substitute(
        name=name,
        percent=f"{_RATIO:.0%}",
        ratio=_RATIO,
        dense=_quoted(f"{name}.yml"),
        source=_quoted(f"recipe:{name}.yml"),
        epochs=settings.epochs,
        pruning_epochs=settings.pruning_epochs,
        tunning_epochs=settings.epochs - settings.pruning_epochs,
        pruning_steps=min(_UPDATES, settings.pruning_epochs * settings.steps),
    )


def _template(name: str) -> Template:
    return Template((Path(__file__).parent / "templates" / f"{name}.yml").read_text(encoding="utf-8"))


def _network(settings: Settings) -> str:
    """Returns the blocks of the network, those of the packaged recipes."""
    text = (FOLDER / "_base_" / "picodet_s_lcnet.yml").read_text(encoding="utf-8")
    first = settings.epochs // 3 if min(settings.sides) >= _LEAST_FOR_ATSS else 0
    why = "the first third uses a simpler label assigner" if first else "images are too small for ATSS"
    return re.sub(r"static_assigner_epoch: \d+", f"static_assigner_epoch: {first}  # {why}", text).rstrip()


def _quoted(text: str) -> str:
    """Quotes a value for YAML if needed; JSON's strings are YAML's."""
    return text if re.fullmatch(r"[A-Za-z0-9_./-]+", text) and text.strip("._-/0123456789") else json.dumps(text)


def _comment(text: str) -> str:
    """Returns one line for a comment."""
    line = one_line(text)
    return line if len(line) <= 80 else f"{line[:77]}..."
