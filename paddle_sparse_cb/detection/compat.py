"""Workarounds for defects of ppdet and Paddle: the only place in this room that patches other people's code.

Each states the versions that need it; `tests/detection/test_compat.py` fails when one is no longer needed.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import logging
import math
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import paddle
from paddle import nn

from ..errors import InputError
from . import allowlist

# Limits on a network. PicoDet-l has 3.3 million weights in some 500 arrays.
MAX_WEIGHTS = 100_000_000
MAX_ARRAYS = 5_000


@functools.lru_cache(maxsize=1)
def import_ppdet() -> Any:
    """Imports ppdet, makes it safe for untrusted recipes and quiet, and returns `ppdet.core.workspace`."""
    import ppdet.core.workspace as workspace
    import ppdet.data
    import ppdet.modeling
    import ppdet.optimizer
    import ppdet.slim  # noqa: F401
    import pycocotools.mask  # noqa: F401  before ppdet: its zlib clashes with paddle's when it comes second

    _silence_loggers()
    _restrict_lookups()
    _parse_xml_safely()
    return workspace


def _silence_loggers() -> None:
    """Hides what ppdet 2.5.0 logs: each array that is not loaded, the stack of an error that it also raises, and that a
    file with class names does not exist, which is an error here unless the number of classes is that of COCO or VOC.
    """
    for name in logging.root.manager.loggerDict:
        if name.startswith("ppdet"):  # each of them sets a level of its own
            logging.getLogger(name).setLevel(logging.WARNING)
    for name in ("reader", "ppdet.data.source.category"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _restrict_lookups() -> None:
    """Limits the names that a recipe can use: ppdet 2.5.0 finds unsafe code in the modules where it looks them up."""
    import ppdet.data.reader as reader
    import ppdet.data.source as source
    import ppdet.data.source.dataset as dataset
    import ppdet.data.transform as transform
    import ppdet.optimizer.optimizer as optimizer

    reader.transform = SimpleNamespace(**allowlist.allowed_transforms(transform))
    dataset.source = SimpleNamespace(**{name: getattr(source, name) for name in allowlist.DATASETS})
    optimizer.build_adamwdl = _refuse_adamwdl
    vars(optimizer).pop("setup_logger", None)  # a learning-rate schedule of this name would write a file


def _refuse_adamwdl(*_: Any, **__: Any) -> None:
    raise InputError(
        "OptimizerBuilder: AdamWDL is not supported, because ppdet evaluates one of its arguments as code; use AdamW"
    )


def _parse_xml_safely() -> None:
    """Refuses XML entities in VOC annotations: ppdet 2.5.0 expands them, so a small file could fill the memory."""
    import defusedxml.ElementTree
    import ppdet.data.source.voc as voc

    voc.ET = defusedxml.ElementTree


@contextlib.contextmanager
def preserve_configuration(registry: dict[str, Any], defaults: Mapping[Any, Any]) -> Iterator[None]:
    """Creates ppdet's modules from copies of the registry and of their default arguments.

    ppdet 2.5.0 creates them from the originals and changes those: LCPAN and CSPPAN append to their list
    `spatial_scales`, so that the second neck created has one level more than the first; and the settings of a nested
    module are written into the registry.

    Args:
        registry: ppdet's `global_config`.
        defaults: constructors and their default arguments as they were when ppdet was imported.
    """
    for constructor, values in defaults.items():
        constructor.__defaults__ = copy.deepcopy(values)
    originals = dict(registry)
    registry.update({name: copy_settings(value) for name, value in originals.items()})
    try:
        yield
    finally:
        registry.clear()
        registry.update(originals)


def copy_settings(value: Any) -> Any:
    """Copies an entry of ppdet's registry; the schema of a module, which cannot be copied deeply, stays shared."""
    from ppdet.core.workspace import SchemaDict

    if not isinstance(value, SchemaDict):
        return copy.deepcopy(value)
    copied = value.copy()
    copied.update(copy.deepcopy(dict(value)))
    return copied


@contextlib.contextmanager
def limit_parameters() -> Iterator[None]:
    """Raises InputError while a network is built as soon as it exceeds `MAX_WEIGHTS` or `MAX_ARRAYS`.

    ppdet 2.5.0 accepts any size, and Paddle (2.6.2, 3.3.1) allocates it: a typing error in a recipe would exhaust the
    memory of the machine.
    """
    create, arrays, weights = nn.Layer.create_parameter, 0, 0

    def counted(layer: nn.Layer, shape: Any, *arguments: Any, **keywords: Any) -> Any:
        nonlocal arrays, weights
        arrays, weights = arrays + 1, weights + math.prod(shape)
        if arrays > MAX_ARRAYS or weights > MAX_WEIGHTS:
            raise InputError(
                f"PicoDet: the network has more than {MAX_WEIGHTS:,} weights or {MAX_ARRAYS:,} arrays; "
                f"the array that exceeds the limit has shape {list(shape)}"
            )
        return create(layer, shape, *arguments, **keywords)

    nn.Layer.create_parameter = counted
    try:
        yield
    finally:
        nn.Layer.create_parameter = create


class _SyncBatchNorm(nn.SyncBatchNorm):
    """Paddle's layer, but in evaluation the plain batch norm, the only one that can be exported for one device."""

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        if self.training:
            return super().forward(x)
        return nn.functional.batch_norm(
            x, self._mean, self._variance, self.weight, self.bias, epsilon=self._epsilon, data_format=self._data_format
        )


def convert_sync_batch_norm(detector: nn.Layer) -> nn.Layer:
    """Makes batch norms use the statistics of all ranks' batches; names and exported operators do not change.

    Paddle (2.6.2, 3.3.1) exports its own SyncBatchNorm as an operator that needs several devices.
    """
    detector = nn.SyncBatchNorm.convert_sync_batchnorm(detector)
    for layer in detector.sublayers():
        if isinstance(layer, nn.SyncBatchNorm):
            layer.__class__ = _SyncBatchNorm  # the conversion cannot be given a class
    return detector


@contextlib.contextmanager
def find_unused_parameters(find: bool) -> Iterator[None]:
    """Sets `find_unused_parameters` of the DataParallel wrapper that `paddle.Model` creates in this context.

    A rank whose batch has no box leaves the box branch without gradients. `paddle.Model` (2.6.2, 3.3.1) has no such
    argument, and a second wrapper would leave the hooks of the first on the parameters.
    """
    wrapper = paddle.DataParallel
    paddle.DataParallel = functools.partial(wrapper, find_unused_parameters=find)
    try:
        yield
    finally:
        paddle.DataParallel = wrapper
