"""What of ppdet a recipe can name.

ppdet looks the names in a recipe up in whole modules, and what it finds there may run a text as code (`eval`), unpickle
a file, write files or download them. A recipe may come from a stranger, so it finds here what a PicoDet is made of, and
nothing else, wherever in the recipe the name stands.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from ..errors import InputError

# Of ppdet's Python files, those with what a PicoDet and its training are made of.
_FILES = tuple(f"ppdet.{name}" for name in (
    "data.reader", "data.source.dataset", "modeling.architectures.picodet", "modeling.assigners.",
    "modeling.backbones.", "modeling.heads.pico_head", "modeling.layers", "modeling.losses.", "modeling.necks.",
    "optimizer.optimizer"))
# Modules there that evaluate an argument or unpickle the file it names.
_UNSAFE_MODULES = frozenset({"ConvNeXt", "CustomCSPPAN", "SwinTransformer", "VisionTransformer"})
# Transforms that unpickle files or write them.
_UNSAFE_TRANSFORMS = frozenset({"DebugVisibleImage", "DecodeCache", "VisibleRBox"})
_DATASETS = ("COCODataSet", "VOCDataSet")
# What PaddleDetection's own files write as a tag; the others would make layers or folders as the file is read.
TAGS = frozenset(f"!{name}" for name in (*_DATASETS, "ImageFolder", "CosineDecay", "ExpWarmup", "LinearWarmup",
                                         "PiecewiseDecay"))


def is_allowed_module(name: str, schema: Any) -> bool:
    """Whether a recipe can name a module of ppdet's registry."""
    return schema.pymodule.__name__.startswith(_FILES) and name not in _UNSAFE_MODULES


def install_allowlist() -> None:
    """Puts what a recipe can name in place of the modules in which ppdet looks up transforms and data sets."""
    import ppdet.data.reader as reader
    import ppdet.data.source as source
    import ppdet.data.source.dataset as dataset
    import ppdet.data.transform as transform
    import ppdet.optimizer.optimizer as optimizer

    transforms = {name: op for name, op in vars(transform).items() if isinstance(op, type)
                  and issubclass(op, transform.BaseOperator) and name not in _UNSAFE_TRANSFORMS}
    reader.transform = SimpleNamespace(**transforms)
    dataset.source = SimpleNamespace(**{name: getattr(source, name) for name in _DATASETS})
    optimizer.build_adamwdl = _refuse_adamwdl
    vars(optimizer).pop("setup_logger", None)  # a schedule of this name would write a file


def _refuse_adamwdl(*_: Any, **__: Any) -> None:
    raise InputError("OptimizerBuilder: ppdet's AdamWDL runs a text of the recipe as code; there is AdamW")
