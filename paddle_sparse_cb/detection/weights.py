"""Pretrained weights for a network: from a path, a URL, or a sample in `detection.datasets.samples`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from ..errors import InputError
from ..utils.downloads import fetch_url
from ..utils.weight_files import load_arrays, load_inference
from . import compat
from .datasets import samples

_MAX_ARRAYS = 2 * compat.MAX_ARRAYS  # of a file of weights; PaddleSlim adds a mask to each


@dataclass(frozen=True)
class LoadedWeights:
    """The result of `load_matching`; as a string, one line for the user.

    Attributes:
        source: where the weights came from.
        loaded: number of arrays of the network that were set.
        missing_keys: names of the network's arrays that keep their initial values, because the source lacks them or
            has them in another shape.
        untrained_heads: names of the prediction layers among them, such as `head.head_cls0`. A detector with untrained
            heads finds nothing until it has been trained.
        mismatch: how the heads of the source differ, in words; empty if it has none or they fit.
    """

    source: str
    loaded: int
    missing_keys: tuple[str, ...]
    untrained_heads: tuple[str, ...] = ()
    mismatch: str = ""

    def __str__(self) -> str:
        text = f"weights of {self.source}: {self.loaded} arrays loaded"
        if self.untrained_heads:
            reason = f"do not fit ({self.mismatch})" if self.mismatch else "are not in the file"
            text += f"; the prediction heads {reason} and start untrained: {_abbreviate(self.untrained_heads)}"
        others = [name for name in self.missing_keys if name.rpartition(".")[0] not in self.untrained_heads]
        if others:
            text += f"; {len(others)} arrays keep their initial values: {_abbreviate(others)}"
        return text


def _abbreviate(names: Iterable[str]) -> str:
    first, *rest = names
    return ", ".join([first, *rest[:2], *(["..."] if len(rest) > 2 else [])])


def read_weights(source: str) -> dict[str, np.ndarray]:
    """Reads weights without executing anything in the file.

    Args:
        source: path of a `.pdparams` file with or without its extension, URL of one (`utils.downloads.fetch_url`), or
            `sample:NAME`.

    Returns:
        Structured name to array. PaddleSlim's masks, if the file has them, are among the arrays.

    Raises:
        InputError: the source does not exist, cannot be read, or has no arrays or too many.
    """
    if source.startswith("sample:"):
        return load_inference(samples.resolve(source[len("sample:") :]))
    is_url = "://" in source
    path = fetch_url(source, check=load_arrays) if is_url else Path(source)
    if path.suffix != ".pdparams":
        path = path.with_name(path.name + ".pdparams")
    if not path.is_file():
        raise InputError(f"no weights at {path}")
    try:
        content = load_arrays(path)
    except InputError as error:  # the disk changed it: a bad file does not enter the cache
        raise InputError(f"{error}; delete {path.parent} to download it again" if is_url else str(error)) from None
    arrays = {name: value for name, value in content.items() if isinstance(value, np.ndarray)}
    if not arrays:
        raise InputError(f"{path}: has no arrays")
    if len(arrays) > _MAX_ARRAYS:  # each is compared with each array of the network
        raise InputError(f"{path}: must have at most {_MAX_ARRAYS:,} arrays, got {len(arrays):,}")
    return arrays


def load_matching(network: paddle.nn.Layer, arrays: Mapping[str, np.ndarray], source: str) -> LoadedWeights:
    """Sets the arrays of a network that have a counterpart of the same name and shape.

    The weights of a backbone alone are matched by the end of their names.

    Args:
        network: any layer.
        arrays: structured name to array, as `read_weights` returns them.
        source: where the arrays came from, for messages.

    Raises:
        InputError: no array fits, or one fits two arrays of the network.
    """
    compat.import_ppdet()
    from ppdet.utils.checkpoint import match_state_dict

    own = network.state_dict()
    try:
        matched = match_state_dict(own, arrays)
    except ValueError as error:
        raise InputError(f"{source}: {error}") from None
    if not matched:
        raise InputError(f"{source}: none of its {len(arrays)} arrays fits the network by name and shape")
    network.set_state_dict({name: value.astype(_numpy_dtype(own[name])) for name, value in matched.items()})
    missing = tuple(name for name in own if name not in matched)
    heads = [weight.rpartition(".")[0] for weight in getattr(network, "prediction_layers", list)()]
    layers = {name.rpartition(".")[0] for name in missing}
    untrained = tuple(head for head in heads if head in layers)
    return LoadedWeights(source, len(matched), missing, untrained, _compare_heads(network, arrays, untrained))


def _numpy_dtype(tensor: paddle.Tensor) -> str:
    return str(tensor.dtype).rsplit(".", 1)[-1]


def _compare_heads(network: Any, arrays: Mapping[str, np.ndarray], untrained: Iterable[str]) -> str:
    """Says how the first head with a counterpart in the arrays differs from it."""
    own = network.state_dict()
    for name in (f"{head}.weight" for head in untrained):
        if name not in arrays:
            continue
        theirs, ours = list(arrays[name].shape), own[name].shape
        if theirs[1:] != ours[1:]:
            return f"{name} has shape {theirs} in the file, {ours} here"
        classes = network.head.cls_out_channels  # the first dimension, but for a constant number of box outputs
        return f"{classes + theirs[0] - ours[0]} classes in the file, {classes} here"
    return ""
