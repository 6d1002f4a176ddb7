"""`MaskRecorder`: what each mask update of a pruner changed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Union

import numpy as np
import paddle

from ..utils.float_bits import host_bits, is_on_host, magnitudes, split_chunks
from .masks import block_scores

if TYPE_CHECKING:
    from .pruner import GMPPruner

_DTYPES = {paddle.float32: "float32", paddle.float64: "float64"}
Mask = Union[paddle.Tensor, np.ndarray, None]


@dataclass(frozen=True)
class MaskUpdate:
    """What the masks of a pruner are after an update, and what the update changed.

    Attributes:
        step: completed optimizer steps.
        ratios: the share of weights that the mask of each planned layer prunes.
        sparsity: the share of weights that the masks prune in all planned layers.
        newly_pruned: number of weights that were kept before and are pruned now.
        regrown: number of weights that were pruned before and are kept now.
    """

    step: int
    ratios: tuple[float, ...]
    sparsity: float
    newly_pruned: int = 0
    regrown: int = 0


class MaskRecorder:
    """Records what a pruner's mask updates change; costs nothing between two updates.

    Args:
        pruner: the pruner to watch, from now on.

    Attributes:
        last: the last update; before the first one, the present masks.
        updates: number of updates.
    """

    def __init__(self, pruner: GMPPruner) -> None:
        self._pruner = pruner
        self._sizes = [weight.size for weight in pruner.weights]
        self.updates = 0
        self.last = self._describe(self._counts([None] * len(self._sizes)))
        pruner.around_update = self._record

    @contextlib.contextmanager
    def _record(self) -> Iterator[None]:
        before = [_copy(self._mask(weight)) for weight in self._pruner.weights]
        yield
        self.last = self._describe(self._counts(before))
        self.updates += 1

    def _mask(self, weight: paddle.Tensor) -> paddle.Tensor | None:
        return self._pruner.masks.get(weight.name)

    @paddle.no_grad()
    def _counts(self, before: Sequence[Mask]) -> list[list[int]]:
        """For each layer the number of pruned, newly pruned and regrown weights."""
        masks = [self._mask(weight) for weight in self._pruner.weights]
        if all(mask is None or is_on_host(mask) for mask in masks):
            return [count_changes_on_host(old, new) for old, new in zip(before, masks)]
        counts = [count_changes_on_device(old, new) for old, new in zip(before, masks)]
        return paddle.stack([one for layer in counts for one in layer]).reshape([-1, 3]).numpy().tolist()

    def _describe(self, counts: list[list[int]]) -> MaskUpdate:
        pruned, newly_pruned, regrown = (sum(column) for column in zip(*counts))
        ratios = tuple(layer[0] / size for layer, size in zip(counts, self._sizes))
        return MaskUpdate(self._pruner.cur_iteration, ratios, pruned / sum(self._sizes), newly_pruned, regrown)

    @paddle.no_grad()
    def thresholds(self) -> list[float]:
        """Returns the smallest magnitude, or L1 norm of a block, that is kept in each layer that has a mask."""
        layers = zip(self._pruner.plan.pruned, self._pruner.weights)
        masked = [(layer.block or (1, 1), weight) for layer, weight in layers if self._mask(weight) is not None]
        if all(block == (1, 1) and is_on_host(one) and one.dtype in _DTYPES for block, one in masked):
            return [smallest_on_host(weight) for _, weight in masked]
        smallest = [smallest_on_device(weight, block) for block, weight in masked]
        if not smallest:
            return []
        bits = paddle.stack(smallest).numpy().reshape(-1)
        return bits.view(f"float{8 * bits.itemsize}").tolist()


def _copy(mask: paddle.Tensor | None) -> Mask:
    """Returns what a mask is before an update: on the host it is overwritten, on a device replaced."""
    return host_bits(mask).copy() if mask is not None and is_on_host(mask) else mask


def smallest_on_host(weight: paddle.Tensor) -> float:
    """Returns the smallest magnitude of a float32 or float64 tensor that is not zero; 0 if all are zero."""
    smallest = []
    for bits in split_chunks(host_bits(weight)):
        unsigned = magnitudes(bits).view(f"uint{8 * bits.itemsize}")
        unsigned -= 1  # zeros become the largest numbers
        smallest.append(unsigned.min())
    return float((np.array(smallest).min(keepdims=True) + 1).view(_DTYPES[weight.dtype])[0])


def smallest_on_device(weight: paddle.Tensor, block: tuple[int, int]) -> paddle.Tensor:
    """Returns the smallest score of a tensor that is not zero (`block_scores`), which stays on its device."""
    scores = block_scores(weight, block)
    largest = np.iinfo(str(scores.dtype).rpartition(".")[2]).max
    # Not `full_like`, which computes in floats.
    return paddle.where(scores == 0, paddle.to_tensor(largest, scores.dtype, place=scores.place), scores).min()


def count_changes_on_host(old: Mask, new: paddle.Tensor | None) -> list[int]:
    """Counts pruned, newly pruned and regrown weights of a mask in the memory of the host.

    Args:
        old: the mask before, as an array [n] or a tensor; None if no weight was pruned.
        new: the mask now, of as many elements; None if no weight is pruned.
    """
    if new is None:
        return [0, 0, 0]
    kept = host_bits(new)
    number = int(np.count_nonzero(kept))
    if old is None:
        return [kept.size - number, kept.size - number, 0]
    kept_before = old if isinstance(old, np.ndarray) else host_bits(old)
    in_both = int(np.count_nonzero(kept & kept_before))
    return [kept.size - number, int(np.count_nonzero(kept_before)) - in_both, number - in_both]


def count_changes_on_device(old: Mask, new: paddle.Tensor | None) -> list[paddle.Tensor]:
    """Counts what `count_changes_on_host` does, with Paddle operators; the numbers stay on the device."""
    if new is None:
        return [paddle.zeros([], "int64")] * 3
    assert not isinstance(old, np.ndarray)
    pruned, old = paddle.logical_not(new), paddle.ones_like(new) if old is None else old
    masks = (pruned, paddle.logical_and(old, pruned), paddle.logical_and(paddle.logical_not(old), new))
    return [mask.astype("int64").sum() for mask in masks]
