"""Permutes output channels so that blocks over them hold more magnitude; what the network computes stays the same.

A block of output channels is pruned as one, so that large weights are lost with small ones beside them. Which channels
are beside each other is arbitrary. As in J. Pool and C. Yu, "Channel Permutations for N:M Sparsity" (2021), channels
are put into a better order before pruning; here it is the order of output channels, found by optimal assignments.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import paddle

from ..errors import PipelineError
from ..utils.layers import eval_mode
from .channel_groups import ChannelGroup, find_channel_groups
from .distribution import layer_ratios
from .layer_settings import set_default_block
from .masks import prune_count
from .plan import PlannedLayer, PrunePlan
from .planned_weights import find_planned_weights

_ROUNDS = 10  # for each row of a block; ten times as many raise the kept magnitude of PicoDet-s by 0.3 points
_TOLERANCE = 1e-2  # of the largest output; another function differs by more, rounding by less


@dataclass(frozen=True)
class KeptMagnitude:
    """The magnitude that a layer keeps at its target ratio.

    Attributes:
        name: structured name of the weight.
        before: share of the magnitudes that are in the largest blocks, in the order of channels before.
        after: the same in the order of channels after the permutation.
    """

    name: str
    before: float
    after: float


@paddle.no_grad()
def permute_channels(
    network: paddle.nn.Layer,
    plan: PrunePlan,
    input_spec: Sequence[Any],
    ratio: float = 0.75,
    sparse_block: Sequence[int] = (1, 1),
    scope: str = "uniform",
    forward: paddle.nn.Layer | None = None,
) -> list[KeptMagnitude]:
    """Permutes the channels of a network in place, before it is trained sparse in blocks of output channels.

    Call it before the first optimizer step: the moments of an optimizer are not permuted.

    Args:
        network: the dense network to start from.
        plan: the layers to prune. Channels are permuted for the layers with blocks of several rows and one column.
        input_spec: the `paddle.static.InputSpec` of each input, with fixed sizes.
        ratio: the target ratio of the layers without a ratio of their own.
        sparse_block: the block of the layers without a block of their own.
        scope: one of `distribution.SCOPES`.
        forward: the layer whose forward pass is traced in place of the network's; it shares the parameters.

    Returns:
        What each of these layers keeps; nothing has changed where its channels cannot be permuted (see
        `find_channel_groups`).

    Raises:
        InputError: the forward pass does not use a parameter, or a value is out of range.
        PipelineError: the outputs differ by more than rounding; the network is as it was before.

    Examples:
        >>> from paddle import nn
        >>> from paddle_sparse_cb import make_plan
        >>> network = nn.Sequential(nn.Conv2D(8, 16, 1), nn.BatchNorm2D(16), nn.ReLU(), nn.Conv2D(16, 4, 1))
        >>> spec = [paddle.static.InputSpec([1, 8, 4, 4], "float32")]
        >>> first, last = permute_channels(network, make_plan(network), spec, 0.75, (4, 1))
        >>> first.after > first.before, last.after == last.before  # the last one's are the outputs of the network
        (True, True)
    """
    forward = forward or network
    plan = set_default_block(plan, sparse_block)
    layers = {
        weight.name: _Blocks(layer.name, weight, layer.block[0], layer_ratio)
        for layer, weight, layer_ratio in zip(
            plan.pruned, find_planned_weights(network, plan), layer_ratios(plan.pruned, ratio, scope)
        )
        if layer.block and is_in_row_blocks(layer)
    }
    before = {name: one.kept(np.arange(one.rows)) for name, one in layers.items()}
    tensors = {tensor.name: tensor for tensor in network.state_dict().values()}
    originals = {name: tensor.numpy() for name, tensor in tensors.items()}
    inputs = _draw_inputs(input_spec)
    outputs = _run(forward, inputs)
    orders: dict[str, np.ndarray] = {}
    for group in find_channel_groups(forward, input_spec):
        together = [layers[one.name] for one in group.slices if one.axis == 0 and one.name in layers]
        if together:
            order = _best_order(together)
            orders.update({one.name: order for one in group.slices if one.axis == 0 and one.name in layers})
            _permute(group, order, tensors)
    if not _are_close(outputs, _run(forward, inputs)):
        for name, tensor in tensors.items():
            tensor.set_value(originals[name])
        raise PipelineError("permuting the channels changed the outputs of the network, so it was undone")
    return [
        KeptMagnitude(one.name, before[name], one.kept(orders[name]) if name in orders else before[name])
        for name, one in layers.items()
    ]


def is_in_row_blocks(layer: PlannedLayer) -> bool:
    """Returns whether the blocks of a layer consist of several rows and one column."""
    return layer.block is not None and layer.block[0] > 1 and layer.block[1] == 1


class _Blocks:
    """The magnitudes of a layer, of which blocks of rows are kept.

    Attributes:
        name: structured name of the weight.
        rows: number of rows.
        height: rows of a block.
    """

    def __init__(self, name: str, weight: paddle.Tensor, height: int, ratio: float) -> None:
        self.name, self.rows, self.height, self._ratio = name, weight.shape[0], height, ratio
        self._magnitudes = np.abs(weight.numpy().reshape(self.rows, -1).astype("float32"))

    def _kept_sums(self, order: np.ndarray, height: int) -> np.ndarray:
        """Returns the sums of the blocks that are kept, the smallest one first."""
        sums = self._magnitudes[order].reshape(self.rows // height, height, -1).sum(1).ravel()
        pruned = min(prune_count(self._ratio, sums.size), sums.size - 1)
        sums.partition(pruned)
        return sums[pruned:]

    def kept(self, order: np.ndarray) -> float:
        """Returns the share of the magnitudes that is kept if the rows are in this order."""
        return float(self._kept_sums(order, self.height).sum() / self._magnitudes.sum())

    def scaled(self, order: np.ndarray, height: int) -> np.ndarray:
        """Returns the magnitudes in units of the smallest block that is kept."""
        smallest = self._kept_sums(order, height)[0]
        return self._magnitudes / smallest if smallest > 0 else np.zeros_like(self._magnitudes)


def _best_order(layers: Sequence[_Blocks]) -> np.ndarray:
    """Returns an order of rows in which the blocks of all layers hold more magnitude.

    The magnitude in the blocks that are kept is, up to a constant, the sum of what each block has beyond the smallest
    of them. In each round one row is taken out of each block, and the rows are put back where this sum is largest.

    Args:
        layers: layers with the same rows, at least one.
    """
    from scipy.optimize import linear_sum_assignment  # slow to import

    height = max(layer.height for layer in layers)
    order = np.arange(layers[0].rows)
    best, most = order, sum(layer.kept(order) for layer in layers)
    draw, blocks = np.random.RandomState(0), np.arange(len(order) // height)
    for _ in range(_ROUNDS * height):
        magnitudes = np.hstack([layer.scaled(order, height) for layer in layers])
        members = order.reshape(-1, height).copy()
        places = draw.randint(0, height, len(blocks))
        taken = members[blocks, places]
        others = magnitudes[members].sum(1) - magnitudes[taken]
        beyond = np.stack([np.maximum(rest + magnitudes[taken] - 1, 0).sum(1) for rest in others])
        members[blocks, places] = taken[linear_sum_assignment(beyond, maximize=True)[1]]
        order = members.ravel()
        kept = sum(layer.kept(order) for layer in layers)
        if kept > most:
            best, most = order, kept
    return best


def _permute(group: ChannelGroup, order: np.ndarray, tensors: Mapping[str, paddle.Tensor]) -> None:
    """Permutes all channels of a group in place."""
    for one in group.slices:
        values = tensors[one.name].numpy()
        index = np.arange(values.shape[one.axis])
        index[one.start : one.start + group.size] = one.start + order
        tensors[one.name].set_value(np.take(values, index, one.axis))


def _draw_inputs(input_spec: Sequence[Any]) -> list[Any]:
    """Returns random floats of about one, because the network may divide by an input, and zeros for integers."""
    draw = np.random.RandomState(0)

    def drawn(spec: Any) -> Any:
        if spec is None or isinstance(spec, dict):
            return spec and {key: drawn(value) for key, value in spec.items()}
        shape = [size if size and size > 0 else 1 for size in spec.shape]
        values = draw.uniform(0.5, 1.5, shape) if "float" in str(spec.dtype) else np.zeros(shape)
        return paddle.to_tensor(values).astype(spec.dtype)

    return [drawn(spec) for spec in input_spec]


def _run(network: paddle.nn.Layer, inputs: Sequence[Any]) -> list[np.ndarray]:
    """Returns the outputs of a forward pass in evaluation mode."""
    with eval_mode(network):
        return [tensor.numpy() for tensor in _tensors(network(*inputs))]


def _tensors(output: Any) -> Iterator[paddle.Tensor]:
    if isinstance(output, paddle.Tensor):
        yield output
    elif isinstance(output, (list, tuple, dict)):
        for part in output.values() if isinstance(output, dict) else output:
            yield from _tensors(part)


def _are_close(expected: Sequence[np.ndarray], found: Sequence[np.ndarray]) -> bool:
    return all(
        one.shape == other.shape and np.abs(one - other).max(initial=0) <= _TOLERANCE * np.abs(one).max(initial=0)
        for one, other in zip(expected, found)
    )
