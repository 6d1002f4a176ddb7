"""A recipe: a YAML file in ppdet's format with one block for the sparsity.

The sparsity block is `Sparsity:`, with the arguments of `SparsityCallback`. PaddleDetection's `UnstructuredPruner:`
is read as the same; where both are given, `Sparsity:` is the later word.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paddle
import yaml

from ._version import __version__
from .callback import SparsityCallback
from .detection import config
from .errors import InputError, did_you_mean
from .schedule import check_count

# Arguments that a recipe cannot give: objects, and what follows from the recipe itself.
_NOT_IN_A_RECIPE = {"self", "plan", "skip_params_func", "post_train", "log_dir", "save_dir"}
_PARAMETERS = inspect.signature(SparsityCallback.__init__).parameters
_SPARSITY_KEYS = frozenset(_PARAMETERS) - _NOT_IN_A_RECIPE
_DEFAULT_RATIO = _PARAMETERS["ratio"].default


@dataclass(frozen=True)
class Recipe:
    """A recipe as read.

    Attributes:
        path: the file.
        content: ppdet's blocks, merged.
        sparsity: arguments of `SparsityCallback`; None for a dense training.
    """

    path: Path
    content: dict[str, Any]
    sparsity: dict[str, Any] | None

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return self.path.stem

    @property
    def output(self) -> Path:
        """The folder for all that the recipe makes: below `save_dir`, by the recipe's name."""
        return Path(self.content.get("save_dir", "output")) / self.name

    @property
    def seed(self) -> int:
        """The seed of all random numbers."""
        return int(self.content.get("seed", 0))

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of the exported network, from `TestReader.inputs_def.image_shape`."""
        shape = self.content.get("TestReader", {}).get("inputs_def", {}).get("image_shape")
        if not isinstance(shape, list) or not all(isinstance(size, int) and size > 0 for size in shape[-2:]):
            raise InputError(f"{self.path}: TestReader.inputs_def.image_shape is [3, height, width], the fixed size of "
                             f"the exported network, got {shape!r}")
        return shape[-2], shape[-1]

    @property
    def target_ratio(self) -> float:
        """The share of the planned weights that is to be zero; 0 for a dense training."""
        return 0.0 if self.sparsity is None else float(self.sparsity.get("ratio", _DEFAULT_RATIO))

    @property
    def weights(self) -> Path:
        """The last checkpoint of a finished training."""
        return self.output / "checkpoints" / "final.pdparams"

    @property
    def exported(self) -> Path:
        """The exported model's path without its ending."""
        return self.output / "inference" / "model"

    @property
    def model(self) -> str:
        """A short name of the network, for the report."""
        backbone = self.content.get(self.content["architecture"], {}).get("backbone", "")
        scale = self.content.get(backbone, {}).get("scale", "")
        return f"{self.content['architecture']} {backbone} x{scale}"

    @property
    def digest(self) -> str:
        """Tells two recipes apart, and the versions that ran them; where the output goes makes no difference."""
        content = {key: value for key, value in self.content.items() if key != "save_dir"}
        what = [content, self.sparsity, paddle.__version__, __version__]
        return hashlib.sha256(json.dumps(what, sort_keys=True, default=vars).encode()).hexdigest()


def read_recipe(path: str | os.PathLike[str], slim_config: str | None = None,
                options: Sequence[str] = ()) -> Recipe:
    """Reads a recipe.

    Args:
        path: the YAML file.
        slim_config: a second one to lay over it, such as PaddleDetection's slim files.
        options: `key=value` or `Block.key=value`, as PaddleDetection's `-o` takes them.

    Raises:
        InputError: a file is missing or no recipe, or the sparsity block has an unknown key or a bad value.
    """
    content = config.read_with_bases(path)
    if slim_config:
        content = config.merge(config.read_with_bases(slim_config), content)
    for option in options:
        content = config.merge(_option(option), content)
    for key in ("architecture", "epoch", "num_classes", "TrainDataset", "TrainReader", "EvalDataset", "EvalReader",
                "LearningRate", "OptimizerBuilder"):
        if key not in content:
            raise InputError(f"{path}: no recipe: it has no {key!r}")
    for key, least in (("epoch", 1), ("num_classes", 1), ("snapshot_epoch", 1), ("log_iter", 1), ("worker_num", 0),
                       ("seed", 0)):
        if key in content:
            check_count(f"{path}: {key}", content[key], least)
    blocks = [content.pop(block) for block in ("UnstructuredPruner", "Sparsity") if block in content]
    for block in blocks:
        if not isinstance(block, dict):
            raise InputError(f"{path}: the sparsity block is a mapping, got {block!r}")
        for key in block:
            if key not in _SPARSITY_KEYS:
                raise InputError(f"{path}: unknown key {key!r} in Sparsity; {did_you_mean(str(key), _SPARSITY_KEYS)}")
    sparsity = {key: value for block in blocks for key, value in block.items()} if blocks else None
    if sparsity is not None:
        SparsityCallback(**sparsity)  # finds bad values before anything long is started
    return Recipe(Path(path), content, sparsity)


def _option(option: str) -> dict[str, Any]:
    keys, equals, value = option.partition("=")
    if not equals or not keys:
        raise InputError(f"-o {option}: an option is key=value or Block.key=value")
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError:
        raise InputError(f"-o {option}: {value!r} is no YAML value") from None
    for key in reversed(keys.split(".")):
        parsed = {key: parsed}
    return parsed
