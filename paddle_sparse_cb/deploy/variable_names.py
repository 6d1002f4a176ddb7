"""Names of variables in an exported program that depend on the network alone.

Paddle names a parameter when it is created, after the number of layers of its kind that the process has created so far:
`conv2d_7.w_0`. The names are in the exported program and decide the order of the weights in its file, so that a second
network in one process would be exported to other files than the same network in a new process.
"""

from __future__ import annotations

import contextlib
import pickle
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import paddle
from paddle.jit.dy2static.program_translator import StaticFunction

from ..utils.weight_files import load_arrays

_NUMBERED = re.compile(r"(.+)_(\d+)")


@contextlib.contextmanager
def numbered_from_zero(network: paddle.nn.Layer) -> Iterator[None]:
    """Renames parameters and buffers as if the network were the first that the process has created.

    Optimizers find the state of a parameter by its name, so that the names are restored. A network with a function
    that was traced already (`paddle.jit.to_static`) keeps its names, since they are in the traced program.

    Args:
        network: any layer.
    """
    if any(isinstance(layer.forward, StaticFunction) for layer in network.sublayers(include_self=True)):
        yield
        return
    tensors = {id(tensor): tensor for tensor in [*network.parameters(), *network.buffers()]}.values()
    before = [tensor.name for tensor in tensors]
    try:
        for tensor, name in zip(tensors, number_from_zero(before)):
            tensor.name = name
        yield
    finally:
        for tensor, name in zip(tensors, before):
            tensor.name = name


def number_from_zero(names: Iterable[str]) -> list[str]:
    """Numbers the layers of each kind from zero and keeps their order.

    Args:
        names: names of parameters and buffers.

    Examples:
        >>> number_from_zero(["conv2d_7.w_0", "conv2d_7.b_0", "conv2d_12.w_0", "linear_3.w_0", "mine"])
        ['conv2d_0.w_0', 'conv2d_0.b_0', 'conv2d_1.w_0', 'linear_0.w_0', 'mine']
    """
    names = list(names)
    numbers: dict[str, set[int]] = {}
    matches = [_NUMBERED.fullmatch(name.partition(".")[0]) for name in names]
    for match in filter(None, matches):
        numbers.setdefault(match[1], set()).add(int(match[2]))
    new = {kind: {number: index for index, number in enumerate(sorted(found))} for kind, found in numbers.items()}
    return [
        name if match is None else f"{match[1]}_{new[match[1]][int(match[2])]}{name[match.end() :]}"
        for name, match in zip(names, matches)
    ]


def sort_structured_names(path: Path) -> None:
    """Rewrites a `.pdiparams.info` file in the order of its names: Paddle writes them in the order of a set.

    Args:
        path: the file.
    """
    if not path.is_file():  # a network without parameters
        return
    content = {
        name: {sys.intern(key): value for key, value in about.items()}
        for name, about in sorted(load_arrays(path).items())
    }
    path.write_bytes(pickle.dumps(content, protocol=2))
