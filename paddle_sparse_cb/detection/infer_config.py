"""`infer_cfg.yml`: what a reader of an exported detector needs besides its program.

The format is that of PaddleDetection's deploy tools (deploy/python/infer.py), which find the file beside
`model.pdmodel`. It has the transforms of an image, the names of the classes, and the least score of a box to be shown.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ..errors import InputError, did_you_mean
from ..utils.files import write_text
from ..utils.text import is_one_line
from . import allowlist, compat
from .config import parse_yaml

NAME = "infer_cfg.yml"
_DRAW_THRESHOLD = 0.5  # PaddleDetection's
_MAX_BYTES = 1 << 20
_MAX_SIZE = 4096  # pixels of a side of the network's input
# What the program lacks after the outputs, by PaddleDetection's names of architectures: nothing, or decoding and NMS.
_COMPLETE, _RAW = "GFL", "PicoDet"
_REQUIRED = {"Resize": ("interp",), "NormalizeImage": ("is_scale", "mean", "std")}  # arguments, by transform


@dataclass(frozen=True)
class InferConfig:
    """What turns an image into inputs of a detector, and its outputs into boxes with names.

    Attributes:
        preprocess: the transforms after decoding, in order: mappings with `type`, the name of one of ppdet's
            transforms, and its arguments.
        labels: the names of the classes, by their numbers.
        threshold: the least score of a box that is shown by default.
        nms: arguments of ppdet's MultiClassNMS, for programs that were exported without it.
        arch: PaddleDetection's name for the outputs of the program.
        strides: of the levels of the heads, for programs that output the raw maps of the heads.
        metric: `COCO` or `VOC`.
    """

    preprocess: tuple[dict[str, Any], ...]
    labels: tuple[str, ...]
    threshold: float = _DRAW_THRESHOLD
    nms: dict[str, Any] = field(default_factory=dict)
    arch: str = _COMPLETE
    strides: tuple[int, ...] = ()
    metric: str = "COCO"

    def transforms(self) -> list[Any]:
        """Creates the transforms.

        Raises:
            InputError: a type is unknown, or an argument cannot be used.
        """
        compat.import_ppdet()
        import ppdet.data.transform

        known = allowlist.allowed_transforms(ppdet.data.transform)
        created = []
        for settings in self.preprocess:
            name = settings.get("type")
            if not isinstance(name, str) or name not in known:
                raise InputError(f"Preprocess: unknown type {name!r}; {did_you_mean(str(name), known)}")
            _check_size(settings)
            try:
                created.append(known[name](**{key: value for key, value in settings.items() if key != "type"}))
            except (TypeError, ValueError, AssertionError) as error:
                raise InputError(f"Preprocess: {name}: {' '.join(str(error).split())}") from None
        return created

    def write(self, path: Path) -> None:
        """Writes the file as PaddleDetection does."""
        content: dict[str, Any] = {
            "mode": "paddle",
            "draw_threshold": self.threshold,
            "metric": self.metric,
            "use_dynamic_shape": False,
            "arch": self.arch,
            "min_subgraph_size": 3,  # of TensorRT; PaddleDetection's value for PicoDet
            "Preprocess": list(self.preprocess),
            "label_list": list(self.labels),
            "NMS": self.nms,
            "fpn_stride": list(self.strides),
        }
        write_text(path, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def _check_size(settings: dict[str, Any]) -> None:
    """Raises InputError for a size that would exhaust the memory."""
    size = settings.get("target_size", 1)
    sides = size if isinstance(size, list) else [size]
    if len(sides) > 2 or not all(type(side) is int and 0 < side <= _MAX_SIZE for side in sides):
        raise InputError(f"Preprocess: target_size must be height and width up to {_MAX_SIZE}, got {size!r}")


def read_infer_config(path: Path) -> InferConfig:
    """Reads `infer_cfg.yml`, of this project or of PaddleDetection.

    Raises:
        InputError: the file is missing, too large or not valid.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; the export writes it beside the model, as PaddleDetection's does")
    if path.stat().st_size > _MAX_BYTES:
        raise InputError(f"{path}: must have at most {_MAX_BYTES:,} bytes, got {path.stat().st_size:,}")
    try:
        return _parse(parse_yaml(path.read_text(encoding="utf-8")))
    except (InputError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {error}") from None


def _parse(content: Any) -> InferConfig:
    if not isinstance(content, dict):
        raise InputError(f"must be a mapping, got {type(content).__name__}")
    preprocess, labels = content.get("Preprocess"), content.get("label_list")
    if not isinstance(preprocess, list) or not all(isinstance(one, dict) for one in preprocess):
        raise InputError(f"Preprocess must be a list of transforms, got {str(preprocess)[:200]}")
    if not isinstance(labels, list) or not labels:
        raise InputError(f"label_list must be a list of class names, got {str(labels)[:200]}")
    if not all(is_one_line(str(label)) for label in labels):
        raise InputError(f"label_list must have no control characters or line breaks, got {str(labels)[:200]!a}")
    threshold, nms, strides = (content.get(key) for key in ("draw_threshold", "NMS", "fpn_stride"))
    threshold = _DRAW_THRESHOLD if threshold is None else threshold
    if not isinstance(threshold, (int, float)) or not 0 <= threshold <= 1:
        raise InputError(f"draw_threshold must be a number from 0 to 1, got {threshold!r}")
    if not isinstance(nms or {}, dict):
        raise InputError(f"NMS must be a mapping, got {nms!r}")
    return InferConfig(
        tuple(preprocess),
        tuple(str(label) for label in labels),
        float(threshold),
        nms or {},
        str(content.get("arch", _COMPLETE)),
        tuple(strides) if isinstance(strides, list) else (),
        str(content.get("metric", "COCO")),
    )


def make_infer_config(content: dict[str, Any], labels: Sequence[str], size: tuple[int, int]) -> InferConfig:
    """Makes the configuration of a recipe.

    The transforms are those of `TestReader`, or of `EvalReader` if it has none. Images are resized to the input size of
    the exported network, as PaddleDetection's export does, also if the reader does not because all images have it.

    Args:
        content: the blocks of the recipe.
        labels: the names of the classes.
        size: height and width of the network's input.

    Raises:
        InputError: the transforms are not a list of mappings.
    """
    given = content.get("TestReader", {}).get("sample_transforms") or content["EvalReader"].get("sample_transforms")
    if not isinstance(given, list) or not all(isinstance(one, dict) and len(one) == 1 for one in given):
        raise InputError(f"EvalReader.sample_transforms must be a list of transforms, got {str(given)[:200]}")
    settings = [(name, arguments or {}) for one in given for name, arguments in one.items() if name != "Decode"]
    if not any("Resize" in name for name, _ in settings):
        settings.insert(0, ("Resize", {"keep_ratio": False}))
    preprocess = tuple(_complete(name, dict(arguments), size) for name, arguments in settings)
    head = content.get(content.get("PicoDet", {}).get("head", ""), {})
    options = content.get("export") or {}
    return InferConfig(
        preprocess,
        tuple(labels),
        nms=dict(head.get("nms") or {}),
        arch=_COMPLETE if options.get("post_process", True) else _RAW,
        strides=tuple(head.get("fpn_stride") or ()),
        metric=content.get("metric", "COCO"),
    )


def _complete(name: str, arguments: dict[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    """Adds the arguments that ppdet has defaults for and its deploy tools require."""
    compat.import_ppdet()
    import ppdet.data.transform

    known = allowlist.allowed_transforms(ppdet.data.transform)
    if name not in known:
        raise InputError(f"EvalReader: unknown transform {name!r}; {did_you_mean(name, known)}")
    if name == "Resize":
        arguments["target_size"] = list(size)
    parameters = inspect.signature(known[name]).parameters
    defaults = {key: parameters[key].default for key in _REQUIRED.get(name, ())}
    return {"type": name, **_plain({**defaults, **arguments})}


def _plain(value: Any) -> Any:
    """Copies a value for YAML: tuples become lists, and equal objects are not shared."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return value
