"""The weights of a network by name, their digest, and states of its layers for a limited time."""

from __future__ import annotations

import contextlib
import hashlib
import warnings
from collections.abc import Iterator

import paddle
from paddle import nn


@contextlib.contextmanager
def eval_mode(network: nn.Layer) -> Iterator[None]:
    """Switches a network to evaluation mode, and each layer back to its own mode on exit.

    A batch norm that was frozen in evaluation mode stays frozen.
    """
    modes = [(layer, layer.training) for layer in network.sublayers(include_self=True)]
    network.eval()
    try:
        yield
    finally:
        for layer, training in modes:
            layer.training = training


@contextlib.contextmanager
def keep_forwards(network: nn.Layer) -> Iterator[None]:
    """Gives each layer its own `forward` back on exit.

    `paddle.jit.save` replaces those of sublayers by translated ones. They compute the same, but translate the functions
    that they call at each call: a training step of PicoDet-s takes three times as long.
    """
    before = [
        (layer, vars(layer).get("forward"), dict(layer._original_funcs))
        for layer in network.sublayers(include_self=True)
    ]
    try:
        yield
    finally:
        for layer, forward, originals in before:
            if forward is not None:
                layer.forward = forward
            else:
                vars(layer).pop("forward", None)
            layer._original_funcs.clear()
            layer._original_funcs.update(originals)


def network_digest(network: nn.Layer) -> str:
    """Returns the SHA-256 digest, in hexadecimal digits, of all parameters and buffers with their names and types."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def named_weights(network: nn.Layer) -> Iterator[tuple[str, nn.Layer, paddle.Tensor]]:
    """Yields the weights of a network: parameters of two or more dimensions, shared ones only once.

    Yields:
        The structured name, the layer that owns the parameter, and the parameter.
    """
    seen: set[int] = set()
    for prefix, layer in network.named_sublayers(include_self=True):
        for name, parameter in layer.named_parameters(include_sublayers=False):
            if len(parameter.shape) > 1 and id(parameter) not in seen:
                seen.add(id(parameter))
                yield (f"{prefix}.{name}" if prefix else name), layer, parameter


def calibrate_batch_norms(network: nn.Layer, *inputs: paddle.Tensor) -> None:
    """Sets the running statistics of all batch norms to those of one forward pass in evaluation mode.

    Args:
        network: any layer.
        inputs: what it is called with.
    """
    norms = [layer for layer in network.sublayers(include_self=True) if isinstance(layer, nn.layer.norm._BatchNormBase)]
    momenta = [norm._momentum for norm in norms]
    with paddle.no_grad(), eval_mode(network), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that statistics are tracked, which is the purpose
        for norm in norms:
            norm.training, norm._momentum = True, 0.0
        try:
            network(*inputs)
        finally:
            for norm, momentum in zip(norms, momenta):
                norm._momentum = momentum
