"""What the ranks of a distributed training have in common: masks, which are compared, and statistics, which are shared.

Gradients are averaged over the ranks, so weights and the masks chosen from them are the same on all. Running
statistics of normalization layers are not: each rank has those of its own share of the data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import paddle

from ..errors import PipelineError


def is_distributed() -> bool:
    """Whether this process trains together with others."""
    return paddle.distributed.get_world_size() > 1 and paddle.distributed.is_initialized()


def is_rank_zero() -> bool:
    """Whether this is rank 0, which writes and speaks for all."""
    return paddle.distributed.get_rank() == 0


def rank_zero_info(message: str) -> None:
    """Prints a line at once, on rank 0."""
    if is_rank_zero():
        print(message, flush=True)


def digest(mask: paddle.Tensor) -> int:
    """64 bits of a mask's content, the same on every rank, machine and version."""
    return int.from_bytes(hashlib.blake2b(mask.numpy().tobytes(), digest_size=8).digest(), "little", signed=True)


def check_same_masks(step: int, names: Sequence[str], masks: Sequence[paddle.Tensor]) -> None:
    """Compares the masks of all ranks by digest; every rank must call this, and every rank gets the same answer.

    One gather of 8 bytes a layer.

    Args:
        step: optimizer steps done on this rank.
        names: of the layers.
        masks: bool, one a layer.

    Raises:
        PipelineError: on every rank, when one is at another step or has another mask.
    """
    gathered: list[paddle.Tensor] = []
    paddle.distributed.all_gather(gathered, paddle.to_tensor([step, *map(digest, masks)], "int64"))
    first, *others = [values.tolist() for values in gathered]
    for rank, values in enumerate(others, start=1):
        if values[0] != first[0]:
            raise PipelineError(f"the ranks have parted: rank 0 renewed its masks at optimizer step {first[0]}, rank "
                            f"{rank} at step {values[0]}")
        differing = [name for name, mine, theirs in zip(names, first[1:], values[1:]) if mine != theirs]
        if differing:
            more = f" and of {len(differing) - 1} more layers" if len(differing) > 1 else ""
            raise PipelineError(f"the ranks have parted: at optimizer step {step} rank {rank} has another mask of "
                            f"{differing[0]} than rank 0{more}; their weights were not the same")


class SyncBuffers(paddle.callbacks.Callback):
    """Gives every rank the running statistics of rank 0 when an evaluation begins.

    The ranks evaluate a share of the images each. Without this they would measure networks that differ in the
    statistics of their normalization layers, and none of them the one that rank 0 saves.
    """

    @paddle.no_grad()
    def on_eval_begin(self, logs: Any = None) -> None:
        """Broadcasts what no gradient changes."""
        if is_distributed():
            for tensor in self.model.network.state_dict().values():
                if tensor.stop_gradient:
                    paddle.distributed.broadcast(tensor, src=0)
