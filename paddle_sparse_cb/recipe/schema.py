"""A recipe: a YAML file in ppdet's format with one block for the sparsity.

The sparsity block is `Sparsity:`, with the arguments of `SparsityCallback`. PaddleDetection's `UnstructuredPruner:`
is read as the same; where both are given, `Sparsity:` is the later word.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paddle

from .._version import __version__
from ..callbacks.sparsity import SparsityCallback
from ..deploy.lite.constraints import check_options
from ..detection import config
from ..errors import InputError, did_you_mean
from ..utils.validation import check_count

# Arguments that a recipe cannot give: objects, and what follows from the recipe itself.
_NOT_IN_A_RECIPE = {"self", "plan", "skip_params_func", "post_train", "log_dir", "save_dir", "resume",
                    "allow_config_change"}
_PARAMETERS = inspect.signature(SparsityCallback.__init__).parameters
_SPARSITY_KEYS = frozenset(_PARAMETERS) - _NOT_IN_A_RECIPE
_DEFAULT_RATIO = _PARAMETERS["ratio"].default
_LARGEST = 4096  # pixels of a side of the exported network's input
_MOST_WORKERS = 1024
_SLIM = "UnstructuredPruner"  # of PaddleDetection's slim methods, the one that this package is


@dataclass(frozen=True)
class Recipe:
    """A recipe as read.

    Attributes:
        path: the file.
        content: ppdet's blocks, merged.
        sparsity: arguments of `SparsityCallback`; None for a dense training.
        above: the recipes that start from this one.
        cut_down: a few steps on other data (`smoke.py`).
        slim: PaddleDetection's slim file laid over it, if there is one.
        files: the names of all files that it was read from, but those that `_BASE_` names, for messages.
    """

    path: Path
    content: dict[str, Any]
    sparsity: dict[str, Any] | None
    above: tuple[Recipe, ...] = ()
    cut_down: bool = False
    slim: Path | None = None
    files: str = ""

    @property
    def name(self) -> str:
        """The file's name without its ending; that of the slim file, as PaddleDetection has it, where there is one."""
        name = (self.slim or self.path).stem
        return f"{name}_smoke" if self.cut_down else name

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
        shape: Any = self.content
        for key in ("TestReader", "inputs_def", "image_shape"):
            shape = shape.get(key) if isinstance(shape, dict) else None
        if not isinstance(shape, list) or len(shape) < 2 or not all(
                type(size) is int and 0 < size <= _LARGEST and size % 32 == 0 for size in shape[-2:]):
            raise InputError(f"{self.files}: TestReader.inputs_def.image_shape is [3, height, width], the fixed size "
                             f"of the exported network in multiples of 32 up to {_LARGEST}, got {shape!r}")
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
    def evaluations(self) -> Path:
        """What each evaluation of the training measured."""
        return self.output / "evaluations.json"

    @property
    def exported(self) -> Path:
        """The exported model's path without its ending."""
        return self.output / "inference" / "model"

    @property
    def lite_options(self) -> dict[str, str]:
        """Options of `paddle_lite_opt`, from `export.lite`, as its command line has them."""
        given = (self.content.get("export") or {}).get("lite") or {}
        return {str(name): str(value).lower() if isinstance(value, bool) else str(value)
                for name, value in given.items()}

    @property
    def model(self) -> str:
        """A short name of the network, for the report."""
        backbone = self.content.get(self.content["architecture"], {}).get("backbone", "")
        scale = self.content.get(backbone, {}).get("scale", "")
        return f"{self.content['architecture']} {backbone} x{scale}"

    @functools.cached_property
    def dense(self) -> Recipe | None:
        """The recipe that `pretrain_weights: recipe:FILE` names; its output lies beside this one's."""
        source = self.content.get("pretrain_weights") or ""
        if not source.startswith("recipe:"):
            return None
        return _read(self.path.parent / source[len("recipe:"):], (), None, (*self.above, self),
                     self.content.get("save_dir"))

    @property
    def digest(self) -> str:
        """Tells two recipes apart, and the versions that ran them; where the output goes makes no difference."""
        content = {key: value for key, value in self.content.items() if key != "save_dir"}
        what = [content, self.sparsity, paddle.__version__, __version__, self.dense.digest if self.dense else None]
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
    recipe = _read(path, options, slim_config, (), None)
    below = recipe.dense  # reads them all, so that a bad one is found now
    while below:
        below = below.dense
    return recipe


def _read(path: str | os.PathLike[str], options: Sequence[str], slim_config: str | None, above: tuple[Recipe, ...],
          save_dir: str | None) -> Recipe:
    content = config.read_with_bases(path)
    slim, files = None, str(path)
    if slim_config:
        over = config.read_with_bases(slim_config)
        slim = Path(slim_config) if "slim" in over else None  # a file of values alone is not what the run is
        content, files = config.merge(over, content), f"{path} with {slim_config}"
    for option in options:
        content = config.merge(_option(option), content)
    if save_dir:
        content["save_dir"] = save_dir
    with config.prefix_errors(files):
        if not save_dir and not any(option.startswith("save_dir=") for option in options):
            _check_save_dir(content.get("save_dir"))
        return _made(Path(path), content, above, slim, files)


def _made(path: Path, content: dict[str, Any], above: tuple[Recipe, ...], slim: Path | None, files: str) -> Recipe:
    """Makes a recipe of its merged content, once that has been checked."""
    for key in ("architecture", "epoch", "num_classes", "TrainDataset", "TrainReader", "EvalDataset", "EvalReader",
                "LearningRate", "OptimizerBuilder"):
        if key not in content:
            raise InputError(f"no recipe: it has no {key!r}")
    _check_values(content)
    blocks = [content.pop(block) for block in ("UnstructuredPruner", "Sparsity") if block in content]
    for block in blocks:
        if not isinstance(block, dict):
            raise InputError(f"the sparsity block is a mapping, got {block!r}")
        for key in block:
            if key not in _SPARSITY_KEYS:
                raise InputError(f"unknown key {key!r} in Sparsity; {did_you_mean(str(key), _SPARSITY_KEYS)}")
    sparsity = {key: value for block in blocks for key, value in block.items()} if blocks else None
    if sparsity is not None:
        SparsityCallback(**sparsity)  # finds bad values before anything long is started
    recipe = Recipe(path, content, sparsity, above, slim=slim, files=files)
    if not recipe.name.strip("."):  # `...yml` is a name for a file
        raise InputError(f"a recipe's name is that of its output folder, which cannot be {recipe.name!r}")
    check_options(recipe.lite_options, sparsity is not None)
    for other in above:
        if other.output == recipe.output:
            raise InputError(f"{other.path}: starts from {path}, which is itself or has the same output folder "
                             f"{recipe.output}")
    return recipe


def _check_save_dir(save_dir: object) -> None:
    """Makes sure that a recipe, which may come from a stranger, writes below the folder that it is run in."""
    if isinstance(save_dir, str) and (Path(save_dir).is_absolute() or ".." in Path(save_dir).parts):
        raise InputError(f"save_dir: {save_dir} leads out of the folder that the recipe is run in; a file cannot say "
                         f"so, only you can: -o save_dir={save_dir}")


def _check_values(content: dict[str, Any]) -> None:
    """Finds values that would be found out late, or never."""
    for key, least in (("epoch", 1), ("num_classes", 1), ("snapshot_epoch", 1), ("snapshot_iter", 1), ("log_iter", 1),
                       ("worker_num", 0), ("seed", 0)):
        if key in content:
            check_count(key, content[key], least)
    if content.get("slim", _SLIM) != _SLIM:
        raise InputError(f"slim is {_SLIM}, got {content['slim']!r}")
    for key in ("architecture", "save_dir", "pretrain_weights"):
        untrained = key == "pretrain_weights" and content.get(key) is None  # PaddleDetection's word for it is null
        if not untrained and not isinstance(content.get(key, ""), str):
            raise InputError(f"{key} is a string, got {content[key]!r}")
    if content.get("worker_num", 0) > _MOST_WORKERS:
        raise InputError(f"worker_num is at most {_MOST_WORKERS}, got {content['worker_num']}")
    source = content.get("pretrain_weights") or ""
    if "://" in source and not source.partition("#")[0].endswith(".pdparams"):
        raise InputError(f"pretrain_weights: a URL ends in .pdparams, or in that and #sha256=DIGEST, got {source}")
    if content.get("seed", 0) >= 2**32:
        raise InputError(f"seed is less than 2**32, got {content['seed']}")
    if content.get("metric", "COCO") not in ("COCO", "VOC"):
        raise InputError(f"metric is COCO or VOC, got {content['metric']!r}")
    if content.get("resume_weights"):
        raise InputError("resume_weights: a training goes on with --resume")
    _check_mixed_precision(content)
    export = content.get("export") or {}
    if not isinstance(export, dict):
        raise InputError(f"export is a mapping, got {export!r}")
    # PaddleDetection's, of which the first two count here, and ours.
    known = {"post_process", "nms", "benchmark", "fuse_conv_bn", "int8", "lite"}
    for key, value in export.items():
        if key not in known:
            raise InputError(f"unknown key {key!r} in export; {did_you_mean(key, known)}")
        if key == "lite":
            if not isinstance(value, dict):
                raise InputError(f"export.lite is a mapping of options of paddle_lite_opt, got {value!r}")
        elif key == "int8" and value:
            raise InputError("export.int8: PicoDet has hard swish, which Paddle-Lite computes wrongly in a sparse "
                             "INT8 model; QuantizeInt8 is for networks without it")
        elif not isinstance(value, bool):
            raise InputError(f"export.{key} is true or false, got {value!r}")


def _check_mixed_precision(content: dict[str, Any]) -> None:
    """Finds values of PaddleDetection's `amp` and its companions that Paddle would take without a word on a CPU."""
    if not isinstance(content.get("amp", False), bool):
        raise InputError(f"amp is true or false, got {content['amp']!r}")
    if content.get("amp_level", "O1") not in ("O1", "O2"):
        raise InputError(f"amp_level is O1 or O2, got {content['amp_level']!r}")
    if "init_loss_scaling" in content:
        check_count("init_loss_scaling", content["init_loss_scaling"], 1)
    for key in ("custom_white_list", "custom_black_list"):
        value = content.get(key) or []
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            raise InputError(f"{key} is a list of names of operators, got {value!r}")


def _option(option: str) -> dict[str, Any]:
    keys, equals, value = option.partition("=")
    if not equals or not keys:
        raise InputError(f"-o {option}: an option is key=value or Block.key=value")
    try:
        parsed = config.parse_yaml(value)
    except InputError as error:
        raise InputError(f"-o {option}: {error}") from None
    for key in reversed(keys.split(".")):
        parsed = {key: parsed}
    return parsed
