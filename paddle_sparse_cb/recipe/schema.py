"""A recipe: a YAML file in PaddleDetection's format with additional blocks for sparsity and distillation.

`Sparsity:` holds arguments of `SparsityCallback` and `permute_channels`. PaddleDetection's `UnstructuredPruner:` is
read as the same block; where both are given, values of `Sparsity:` take precedence. `Distillation:` is a
`DistillationBlock`.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paddle

from .._version import __version__
from ..deploy.lite.constraints import check_options
from ..deploy.mnn.constraints import check_block
from ..detection import config
from ..errors import InputError
from ..pruning.config import PruningConfig
from .distillation_block import DistillationBlock
from .options import parse_option
from .sparsity_block import check_others, pop_sparsity, pruner_settings, sensitivity_content
from .values import check_save_dir, check_values

REQUIRED = (
    "architecture",
    "epoch",
    "num_classes",
    "TrainDataset",
    "TrainReader",
    "EvalDataset",
    "EvalReader",
    "LearningRate",
    "OptimizerBuilder",
)
_MAX_SIZE = 4096  # pixels of a side of the exported network's input
_MAX_CHAIN = 8  # recipes that start from one another


@dataclass(frozen=True)
class Recipe:
    """A recipe as read.

    Attributes:
        path: the file.
        content: ppdet's blocks, merged.
        sparsity: the `Sparsity` block; None for a dense training.
        above: the recipes that start from this one.
        distillation: what it learns from a teacher; None without one.
        is_smoke: whether it was reduced to a few steps on other data (`smoke.py`).
        slim: PaddleDetection's slim file that was merged over it, if there is one.
        files: the files that it was read from, except those that `_BASE_` names, for messages.
        given_keys: the keys that `-o` set.
    """

    path: Path
    content: dict[str, Any]
    sparsity: dict[str, Any] | None
    above: tuple[Recipe, ...] = ()
    is_smoke: bool = False
    slim: Path | None = None
    files: str = ""
    given_keys: frozenset[str] = frozenset()
    distillation: DistillationBlock | None = None

    @property
    def name(self) -> str:
        """The name of the slim file, as in PaddleDetection, or of the recipe's file, without the suffix."""
        name = (self.slim or self.path).stem
        return f"{name}_smoke" if self.is_smoke else name

    @property
    def output(self) -> Path:
        """The output folder: below `save_dir`, with the name of the recipe."""
        return Path(self.content.get("save_dir", "output")) / self.name

    @property
    def seed(self) -> int:
        """The seed of all random numbers."""
        return int(self.content.get("seed", 0))

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of the exported network, from `TestReader.inputs_def.image_shape`."""
        shape: Any = self.content
        for key in ("TestReader", "inputs_def", "image_shape"):
            shape = shape.get(key) if isinstance(shape, dict) else None
        if (
            not isinstance(shape, list)
            or len(shape) < 2
            or not all(type(size) is int and 0 < size <= _MAX_SIZE and size % 32 == 0 for size in shape[-2:])
        ):
            raise InputError(
                f"{self.files}: TestReader.inputs_def.image_shape must be [3, height, width], the fixed "
                f"size of the exported network in multiples of 32 up to {_MAX_SIZE}, got {shape!r}"
            )
        return shape[-2], shape[-1]

    def pruning_config(self) -> PruningConfig:
        """The settings of the pruner; the defaults for a dense training."""
        return PruningConfig.from_dict(pruner_settings(self.sparsity or {}))

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.output / "checkpoints"

    def checkpoint(self, choice: str) -> Path:
        """Returns the `.pdparams` file of a finished training.

        Args:
            choice: `last`, or `best`: the best one at the target ratio, or the last one if none was evaluated.
        """
        best = self.checkpoints / "best_model.pdparams"
        use_best = choice == "best" and self.sparsity is not None and best.is_file()
        return best if use_best else self.checkpoints / "final.pdparams"

    @property
    def given_weights(self) -> Path | None:
        """The file that `weights` names, PaddleDetection's key for what is evaluated and exported.

        PaddleDetection's own files name its output folder there. Such a file is used if it exists; a file that `-o`
        names must exist.

        Raises:
            InputError: `-o weights=` names no file.
        """
        name = self.content.get("weights")
        if not name:
            return None
        file = Path(name)
        if file.suffix != ".pdparams":
            file = file.with_name(f"{file.name}.pdparams")
        if file.is_file():
            return file
        if "weights" in self.given_keys:
            raise InputError(f"weights: {file} does not exist")
        return None

    @property
    def evaluations(self) -> Path:
        """The log of the evaluations."""
        return self.output / "evaluations.json"

    @property
    def curves(self) -> Path:
        """The folder of the TensorBoard curves."""
        return self.output / "tensorboard"

    @property
    def exported(self) -> Path:
        """The path of the exported model without a suffix."""
        return self.output / "inference" / "model"

    @property
    def lite_options(self) -> dict[str, str]:
        """Options of `paddle_lite_opt` from `export.lite`, as strings for its command line."""
        given = (self.content.get("export") or {}).get("lite") or {}
        return {
            str(name): str(value).lower() if isinstance(value, bool) else str(value) for name, value in given.items()
        }

    @property
    def mnn_block(self) -> int | None:
        """The block of output channels of `export.mnn`, see `deploy.mnn.converter`; None without MNN."""
        given = (self.content.get("export") or {}).get("mnn", False)
        return given.get("block", 1) if isinstance(given, dict) else 1 if given else None

    @property
    def model(self) -> str:
        """A short name of the network, for the report."""
        backbone = self.content.get(self.content["architecture"], {}).get("backbone", "")
        scale = self.content.get(backbone, {}).get("scale", "")
        return f"{self.content['architecture']} {backbone} x{scale}"

    @functools.cached_property
    def dense(self) -> Recipe | None:
        """The recipe that `pretrain_weights: recipe:FILE` names; its output folder is beside this one's."""
        source = self.content.get("pretrain_weights") or ""
        if not source.startswith("recipe:"):
            return None
        return _read(
            self.path.parent / source[len("recipe:") :], (), None, (*self.above, self), self.content.get("save_dir")
        )

    @functools.cached_property
    def teacher(self) -> Recipe | None:
        """The recipe that `Distillation: {teacher: recipe:FILE}` names; its output folder is beside this one's."""
        file = self.distillation.recipe_file if self.distillation else None
        if file is None:
            return None
        return _read(self.path.parent / file, (), None, (*self.above, self), self.content.get("save_dir"))

    @property
    def digest(self) -> str:
        """A digest of the recipe and of the versions that run it; output folder and `weights` make no difference."""
        content = {key: value for key, value in self.content.items() if key not in ("save_dir", "weights")}
        settings = self.pruning_config()
        patterns = [list(settings.ratios), list(settings.blocks)]  # the last one that matches decides
        dense = self.dense.digest if self.dense else None
        what = [content, self.sparsity, patterns, paddle.__version__, __version__, dense]
        what += sensitivity_content(self.sparsity, self.output)
        if self.distillation:
            what += [self.distillation, self.teacher.content if self.teacher else None]
        return hashlib.sha256(json.dumps(what, sort_keys=True, default=vars).encode()).hexdigest()


def read_recipe(path: str | os.PathLike[str], slim_config: str | None = None, options: Sequence[str] = ()) -> Recipe:
    """Reads a recipe.

    Args:
        path: the YAML file.
        slim_config: a second file to merge over it, such as PaddleDetection's slim files.
        options: `key=value` or `Block.key=value`, as PaddleDetection's `-o` takes them.

    Raises:
        InputError: a file is missing or not a recipe, or a key is unknown or has a bad value.
    """
    recipe = _read(path, options, slim_config, (), None)
    below: Recipe | None = recipe
    while below:  # reads all of them and their teachers, so that errors are found now
        _, below = below.teacher, below.dense
    return recipe


def _read(
    path: str | os.PathLike[str],
    options: Sequence[str],
    slim_config: str | None,
    above: tuple[Recipe, ...],
    save_dir: str | None,
) -> Recipe:
    if len(above) >= _MAX_CHAIN:
        raise InputError(
            f"{above[0].path}: pretrain_weights must lead through at most {_MAX_CHAIN - 1} further recipes, "
            f"and {path} would be one more"
        )
    content = config.read_with_bases(path)
    slim, files = None, str(path)
    if slim_config:
        over = config.read_with_bases(slim_config)
        slim = Path(slim_config) if "slim" in over else None  # a file of plain values does not name the run
        content, files = config.merge(over, content), f"{path} with {slim_config}"
    for option in options:
        content = config.merge(parse_option(option), content)
    if save_dir:
        content["save_dir"] = save_dir
    with config.prefix_errors(files):
        if not save_dir and not any(option.startswith("save_dir=") for option in options):
            check_save_dir(content.get("save_dir"))
        given_keys = frozenset(option.partition("=")[0] for option in options)
        return _made(Path(path), content, above, slim, files, given_keys)


def _made(
    path: Path,
    content: dict[str, Any],
    above: tuple[Recipe, ...],
    slim: Path | None,
    files: str,
    given_keys: frozenset[str],
) -> Recipe:
    """Creates a recipe from its merged and checked content."""
    for key in REQUIRED:
        if key not in content:
            raise InputError(f"not a recipe: it has no {key!r}")
    check_values(content)
    sparsity = pop_sparsity(content)
    learned = DistillationBlock.read(content)
    recipe = Recipe(path, content, sparsity, above, slim=slim, files=files, given_keys=given_keys, distillation=learned)
    recipe.pruning_config()  # finds bad values before anything long is started
    check_others(sparsity or {})
    if not recipe.name.strip("."):  # `...yml` is a valid file name
        raise InputError(f"the output folder has the name of the recipe, which cannot be {recipe.name!r}")
    check_options(recipe.lite_options, sparsity is not None)
    if recipe.mnn_block is not None:
        check_block(recipe.mnn_block)
    for other in above:
        if other.output == recipe.output:
            raise InputError(
                f"{other.path}: starts from {path}, which is the same recipe or has the same output "
                f"folder {recipe.output}"
            )
    return recipe
