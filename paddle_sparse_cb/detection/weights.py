"""Pretrained weights into a network: from a path, a URL, or a `sample:` of `detection.samples`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import paddle

from ..errors import InputError
from ..pruning.paddleslim_masks import apply_paddleslim_masks
from ..utils.downloads import fetch_url
from ..utils.weight_files import load_arrays, load_inference
from .datasets import samples


@dataclass(frozen=True)
class LoadedWeights:
    """What a file of weights gave a network.

    Attributes:
        source: where the weights came from.
        loaded: how many of the network's arrays were set.
        missing_keys: the network's names that kept what they had: the file lacks them or has another shape.
        masked: how many layers of the file PaddleSlim's masks, which lay beside the weights, have been applied to.
    """

    source: str
    loaded: int
    missing_keys: tuple[str, ...]
    masked: int = 0

    untrained_heads: tuple[str, ...] = ()

    def __str__(self) -> str:
        some = ", ".join(self.missing_keys[:3]) + (", ..." if len(self.missing_keys) > 3 else "")
        left = f", {len(self.missing_keys)} left as they were ({some})" if self.missing_keys else ""
        masked = f", masks of {self.masked} layers applied" if self.masked else ""
        return f"weights of {self.source}: {self.loaded} arrays loaded{masked}{left}"


def load_pretrained(network: paddle.nn.Layer, source: str) -> LoadedWeights:
    """Loads what fits by name and shape; a backbone's own weights find their place by the end of the name.

    Zeros of a sparse file are kept from the first step of a training with `SparsityCallback` on, where a layer is one
    that it prunes; so are those of PaddleSlim's masks (`apply_paddleslim_masks`).

    Args:
        network: any layer.
        source: a `.pdparams` file with or without its ending, a URL of one, or `sample:NAME`.

    Raises:
        InputError: nothing is there, it cannot be read, or nothing in it fits the network.
    """
    from ppdet.utils.checkpoint import match_state_dict

    arrays = _read(source)
    own = network.state_dict()
    try:
        arrays, masked = apply_paddleslim_masks(arrays)
        matched = match_state_dict(own, arrays)
    except ValueError as error:
        raise InputError(f"{source}: {error}") from None
    if not matched:
        raise InputError(f"{source}: none of its {len(arrays)} arrays fits the network by name and shape")
    network.set_state_dict({name: value.astype(_numpy_dtype(own[name])) for name, value in matched.items()})
    layers = {name.rpartition(".")[0] for name in masked}
    return LoadedWeights(source, len(matched), tuple(name for name in own if name not in matched), len(layers))


def _numpy_dtype(tensor: paddle.Tensor) -> str:
    return str(tensor.dtype).rsplit(".", 1)[-1]


def _read(source: str) -> dict[str, np.ndarray]:
    if source.startswith("sample:"):
        return load_inference(samples.resolve(source[len("sample:"):]))
    if "://" in source:
        source = str(fetch_url(source))
    path = Path(source)
    if path.suffix != ".pdparams":
        path = path.with_name(path.name + ".pdparams")
    if not path.is_file():
        raise InputError(f"pretrain_weights: nothing at {path}")
    arrays = {name: value for name, value in load_arrays(path).items() if isinstance(value, np.ndarray)}
    if not arrays:
        raise InputError(f"{path}: holds no arrays")
    return arrays
