"""Pretrained weights into a network: from a path, a URL, or a `sample:` of `detection.samples`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import paddle

from ..errors import InputError
from ..stored import load_arrays, load_inference
from . import samples


@dataclass(frozen=True)
class Loaded:
    """What a file of weights gave a network.

    Attributes:
        source: where the weights came from.
        loaded: how many of the network's arrays were set.
        left: the network's names that kept what they had: the file lacks them or has another shape.
    """

    source: str
    loaded: int
    left: tuple[str, ...]

    def __str__(self) -> str:
        some = ", ".join(self.left[:3]) + (", ..." if len(self.left) > 3 else "")
        left = f", {len(self.left)} left as they were ({some})" if self.left else ""
        return f"weights of {self.source}: {self.loaded} arrays loaded{left}"


def load_pretrained(network: paddle.nn.Layer, source: str) -> Loaded:
    """Loads what fits by name and shape; a backbone's own weights find their place by the end of the name.

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
        matched = match_state_dict(own, arrays)
    except ValueError as error:
        raise InputError(f"{source}: {error}") from None
    if not matched:
        raise InputError(f"{source}: none of its {len(arrays)} arrays fits the network by name and shape")
    network.set_state_dict({name: value.astype(_numpy_dtype(own[name])) for name, value in matched.items()})
    return Loaded(source, len(matched), tuple(name for name in own if name not in matched))


def _numpy_dtype(tensor: paddle.Tensor) -> str:
    return str(tensor.dtype).rsplit(".", 1)[-1]


def _read(source: str) -> dict[str, np.ndarray]:
    if source.startswith("sample:"):
        return load_inference(samples.resolve(source[len("sample:"):]))
    if "://" in source:
        source = _download(source)
    path = Path(source)
    if path.suffix != ".pdparams":
        path = path.with_name(path.name + ".pdparams")
    if not path.is_file():
        raise InputError(f"pretrain_weights: nothing at {path}")
    arrays = {name: value for name, value in load_arrays(path).items() if isinstance(value, np.ndarray)}
    if not arrays:
        raise InputError(f"{path}: holds no arrays")
    return arrays


def _download(url: str) -> str:
    import requests
    from ppdet.utils.download import get_weights_path

    try:
        return get_weights_path(url)
    except requests.RequestException as error:
        raise InputError(f"pretrain_weights: cannot fetch {url} ({type(error).__name__}); where its host is not "
                         "reached, give the path of a copy") from None
    except (OSError, RuntimeError) as error:
        raise InputError(f"pretrain_weights: cannot fetch {url}: {error}") from None
