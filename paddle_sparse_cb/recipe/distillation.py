"""Builds the teacher of a recipe, and the `Distillation` that trains towards it."""

from __future__ import annotations

from pathlib import Path

import paddle

from ..callbacks.distillation import Distillation
from ..detection import config
from ..detection.distillation import DetectionDistillation, TeacherNetwork, check_teacher
from ..detection.network import DetectionNetwork, build_network
from ..detection.weights import load_matching, read_weights
from ..errors import InputError
from ..pruning.paddleslim_masks import apply_paddleslim_masks
from ..utils.distributed import rank_zero_info
from .build import naming_recipe
from .distillation_block import DENSE
from .schema import Recipe


@naming_recipe
def build_distillation(recipe: Recipe, network: DetectionNetwork) -> list[Distillation]:
    """Builds the callback of a recipe's `Distillation` block; an empty list without the block.

    Call it when the dense recipe that this one starts from, if there is one, has been trained.

    Args:
        recipe: the recipe.
        network: its network.

    Raises:
        InputError: the teacher's weights are missing or do not fit, or it has another head.
    """
    block = recipe.distillation
    if block is None:
        return []
    with config.prefix_errors("Distillation.teacher"):
        teacher = _build_teacher(recipe)
        check_teacher(network, teacher)
    outputs = DetectionDistillation(block.classification, block.localization)
    return [
        Distillation(
            TeacherNetwork(teacher),
            outputs,
            weight=1.0 if block.classification or block.localization else 0.0,
            features=("neck",),
            feature_weight=block.features,
            outputs="head",
            labels=block.labels,
            warmup_epochs=block.warmup_epochs,
            decay=block.decay,
        )
    ]


def _build_teacher(recipe: Recipe) -> DetectionNetwork:
    """Builds the network of the teacher and loads all of its weights; ppdet's registry stays that of the recipe."""
    other = recipe.teacher or recipe
    with paddle.utils.unique_name.guard(), config.convert_errors(other.files):
        try:
            network = build_network(config.load(other.content, other.files))
        finally:
            config.load(recipe.content, recipe.files)
    if paddle.get_device() == "cpu":
        from ..detection.depthwise import use_fast_depthwise  # see `build_detector`

        use_fast_depthwise(network)
    if recipe.is_smoke:
        rank_zero_info("distilling from an untrained teacher: this is a smoke run")
        return network
    source = teacher_weights(recipe)
    arrays, _ = apply_paddleslim_masks(read_weights(source))
    loaded = load_matching(network, arrays, source)
    # ppdet's PicoHead inherits scales that it does not use; exported models have none.
    if any(not name.endswith(".scale_reg") for name in loaded.missing_keys):
        hint = "" if recipe.teacher else "; a teacher with other layers is given as recipe:FILE"
        raise InputError(f"a teacher needs all of its weights: {loaded}{hint}")
    rank_zero_info(f"distilling from {source}")
    return network


def teacher_weights(recipe: Recipe) -> str:
    """Returns where the weights of a recipe's teacher come from.

    Raises:
        InputError: the teacher's recipe has not been trained.
    """
    assert recipe.distillation is not None
    other = recipe.teacher
    if other is not None:
        weights = other.given_weights or other.checkpoint("best")
        if not weights.is_file():
            raise InputError(f"{weights}: not trained yet; run: paddle-sparse train {other.path}")
        return str(weights)
    if recipe.distillation.teacher != DENSE:
        return recipe.distillation.teacher
    return str(recipe.dense.checkpoint("last") if recipe.dense else recipe.content["pretrain_weights"])


@naming_recipe
def check_teacher_exists(recipe: Recipe) -> None:
    """Checks before anything is built that the weights of the teacher are there, unless they are still to be trained.

    Raises:
        InputError: they are not.
    """
    if recipe.distillation is None or recipe.is_smoke or recipe.distillation.teacher == DENSE:
        return
    with config.prefix_errors("Distillation.teacher"):
        source = teacher_weights(recipe)
        if "://" not in source and not source.startswith("sample:"):
            is_file = Path(source).is_file() or Path(f"{source}.pdparams").is_file()
            if not is_file:
                raise InputError(f"no weights at {source}")
