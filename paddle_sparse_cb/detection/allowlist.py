"""What an untrusted recipe may name.

ppdet looks up the names in a recipe in whole modules, where it also finds code that evaluates text (`eval`), unpickles
files, writes files or downloads them. A recipe here finds only what a PicoDet and its training consist of, wherever in
the recipe the name stands. `compat` puts these lists into effect.
"""

from __future__ import annotations

from typing import Any

# Python files of ppdet with the parts of a PicoDet and its training.
_FILES = tuple(
    f"ppdet.{name}"
    for name in (
        "data.reader",
        "data.source.dataset",
        "modeling.architectures.picodet",
        "modeling.assigners.",
        "modeling.backbones.",
        "modeling.heads.pico_head",
        "modeling.layers",
        "modeling.losses.",
        "modeling.necks.",
        "optimizer.optimizer",
    )
)
# Modules in these files that evaluate an argument or unpickle the file it names.
_UNSAFE_MODULES = frozenset({"ConvNeXt", "CustomCSPPAN", "SwinTransformer", "VisionTransformer"})
# Transforms that unpickle or write files.
UNSAFE_TRANSFORMS = frozenset({"DebugVisibleImage", "DecodeCache", "VisibleRBox"})
DATASETS = ("COCODataSet", "ImageFolder", "VOCDataSet")
# YAML tags in PaddleDetection's own files. Other tags would create layers or folders while the file is read.
TAGS = frozenset(f"!{name}" for name in (*DATASETS, "CosineDecay", "ExpWarmup", "LinearWarmup", "PiecewiseDecay"))


def is_allowed_module(name: str, schema: Any) -> bool:
    """Whether a recipe may name a module of ppdet's registry."""
    return schema.pymodule.__name__.startswith(_FILES) and name not in _UNSAFE_MODULES


def allowed_transforms(transform: Any) -> dict[str, type]:
    """The transforms of `ppdet.data.transform` that a recipe may name."""
    return {
        name: op
        for name, op in vars(transform).items()
        if isinstance(op, type) and issubclass(op, transform.BaseOperator) and name not in UNSAFE_TRANSFORMS
    }
