"""Ranks of a distributed run: which one this is, and whether all of them hold the same masks and teachers.

Gradients are averaged over the ranks, so that weights, and the masks chosen from them, are equal on all ranks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import paddle

from ..errors import RankMismatchError
from .messages import logger


def is_distributed() -> bool:
    """Returns whether this process trains together with others."""
    return paddle.distributed.get_world_size() > 1 and paddle.distributed.is_initialized()


def is_rank_zero() -> bool:
    """Returns whether this is rank 0, the rank that writes files and prints."""
    return paddle.distributed.get_rank() == 0


def rank_zero_info(message: str) -> None:
    """Logs a message on rank 0."""
    if is_rank_zero():
        logger.info(message)


def rank_zero_warning(message: str) -> None:
    """Logs a warning on rank 0."""
    if is_rank_zero():
        logger.warning(message)


def digest(mask: paddle.Tensor) -> int:
    """Returns 64 bits of a digest of a mask, the same on every rank, machine and version."""
    return int.from_bytes(hashlib.blake2b(mask.numpy().tobytes(), digest_size=8).digest(), "little", signed=True)


def check_same_on_ranks(what: str, hexadecimal: str) -> None:
    """Compares the digests that the ranks have of something; alone, a process compares nothing.

    Every rank must call this, and every rank gets the same result.

    Args:
        what: what the digest is of, for the message, such as `teacher`.
        hexadecimal: the digest, in hexadecimal digits.

    Raises:
        RankMismatchError: on every rank, if one has another digest.
    """
    if not is_distributed():
        return
    gathered: list[paddle.Tensor] = []
    paddle.distributed.all_gather(gathered, paddle.to_tensor([int(hexadecimal[:15], 16)], "int64"))
    first, *others = [int(value) for value in gathered]
    for rank, value in enumerate(others, start=1):
        if value != first:
            raise RankMismatchError(f"the ranks have different {what}s: that of rank {rank} is not that of rank 0")


def check_same_masks(step: int, names: Sequence[str], masks: Sequence[paddle.Tensor | None]) -> None:
    """Compares the masks of all ranks by their digests: one gather of 8 bytes per layer.

    Every rank must call this, and every rank gets the same result.

    Args:
        step: completed optimizer steps on this rank.
        names: names of the layers.
        masks: bool, one per layer; None for a layer that has no mask yet.

    Raises:
        RankMismatchError: on every rank, if one is at another step or has another mask.
    """
    gathered: list[paddle.Tensor] = []
    digests = [0 if mask is None else digest(mask) for mask in masks]
    paddle.distributed.all_gather(gathered, paddle.to_tensor([step, *digests], "int64"))
    first, *others = [values.tolist() for values in gathered]
    for rank, values in enumerate(others, start=1):
        if values[0] != first[0]:
            raise RankMismatchError(
                f"the ranks are out of step: rank 0 updated its masks at optimizer step {first[0]}"
                f", rank {rank} at step {values[0]}"
            )
        differing = [name for name, ours, theirs in zip(names, first[1:], values[1:]) if ours != theirs]
        if differing:
            more = f" and of {len(differing) - 1} more layers" if len(differing) > 1 else ""
            raise RankMismatchError(
                f"the masks of the ranks differ: at optimizer step {step} rank {rank} has another "
                f"mask of {differing[0]}{more} than rank 0; their weights were not the same"
            )
