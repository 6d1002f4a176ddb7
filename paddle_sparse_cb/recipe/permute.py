"""Permutes the channels of a recipe's network before its training, if the recipe asks for it."""

from __future__ import annotations

from paddle.static import InputSpec

from ..detection.feature_maps import FeatureMaps
from ..pruning.channel_permutation import permute_channels
from ..utils.distributed import rank_zero_info
from .build import Run


def permute_run(run: Run) -> None:
    """Permutes the channels for the blocks of the plan if the recipe says so, and prints what is gained.

    Raises:
        PipelineError: see `permute_channels`.
    """
    if not (run.recipe.sparsity or {}).get("permute_channels"):
        return
    settings = run.recipe.pruning_config()
    rank_zero_info("permuting channels ...")
    kept = permute_channels(
        run.network,
        run.plan,
        [InputSpec([1, 3, *run.recipe.input_size], "float32", "image")],
        ratio=settings.ratio,
        sparse_block=settings.sparse_block,
        scope=str(settings.scope),
        forward=FeatureMaps(run.network),
    )
    changed = sum(one.after > one.before for one in kept)
    before, after = (sum(getattr(one, when) for one in kept) / len(kept) for when in ("before", "after"))
    rank_zero_info(
        f"channels of {changed} of {len(kept)} layers permuted: their blocks keep {after:.1%} of the magnitudes at the "
        f"target ratio, {before:.1%} before (mean of the layers)"
    )
