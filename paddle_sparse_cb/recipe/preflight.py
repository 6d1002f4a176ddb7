"""Finds what is wrong with a recipe before a training of days, and not after it."""

from __future__ import annotations

import os

import paddle

from ..deploy.lite import constraints as lite
from ..deploy.lite.optimizer import find_optimizer
from ..deploy.mnn import constraints as mnn
from ..deploy.mnn.hook import require_packages
from ..detection import config
from ..errors import InputError, PipelineError
from ..pruning.channel_permutation import is_in_row_blocks
from ..pruning.plan import PrunePlan
from ..utils.distributed import is_rank_zero, rank_zero_info, rank_zero_warning
from .build import Run, build_ema, naming_recipe
from .distillation import check_teacher_exists
from .output_folder import find_data_to_be_moved
from .schema import Recipe

# PaddleDetection's keys that have no effect here, and what to use instead.
WITHOUT_EFFECT = {
    "ema_filter_no_grad": "the average leaves out what ema_black_list names",
    "filename": "the output folder has the name of the recipe",
    "map_type": "mAP is COCO's, over IoU 0.5 to 0.95",
    "print_flops": "paddle-sparse plan prints multiply-accumulates",
    "print_params": "paddle-sparse plan prints the weights",
    "pruner": "the Sparsity block chooses the pruner",
    "use_mlu": "Paddle's default device is used",
    "use_npu": "Paddle's default device is used",
    "use_xpu": "Paddle's default device is used",
}


@naming_recipe
def check_recipe(recipe: Recipe) -> None:
    """Checks a recipe and the machine before anything is built.

    Raises:
        InputError: the output folder cannot be written, or a value is out of range.
    """
    for link in (recipe.output, recipe.checkpoints):
        if link.is_symlink() and not link.exists():
            raise InputError(f"save_dir: {link} is a link to {os.readlink(link)}, which does not exist")
    folder = next(path for path in (recipe.output, *recipe.output.parents) if path.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise InputError(f"save_dir: {recipe.output} cannot be created: {folder} is not a writable folder")
    for message in find_data_to_be_moved(recipe):
        raise InputError(message)
    build_ema(recipe)
    check_teacher_exists(recipe)
    for key, instead in WITHOUT_EFFECT.items():
        if recipe.content.get(key):
            rank_zero_info(f"note: {key} has no effect here: {instead}")
    if recipe.content.get("use_gpu") is False:
        paddle.set_device("cpu")
    if recipe.content.get("amp", False) and paddle.get_device() == "cpu":
        rank_zero_warning("amp has no effect: on a CPU Paddle trains in float32")
    if recipe.sparsity is not None and is_rank_zero():
        try:
            find_optimizer()
        except PipelineError as error:
            rank_zero_warning(f"{error}")


def check_trainable(run: Run) -> None:
    """Checks that the schedule fits the training and that every planned layer will run sparse.

    Raises:
        InputError: the training is too short, or a layer would end below its ratio or dense in Paddle-Lite or MNN.
        PipelineError: the recipe asks for MNN, and a package is missing.
    """
    recipe, steps = run.recipe, len(run.train_loader)
    if recipe.sparsity is None:
        return
    with config.prefix_errors(recipe.files):
        recipe.pruning_config().schedule(steps, recipe.content["epoch"] * steps)
        check_plan(recipe, run.plan)
        if recipe.sparsity.get("permute_channels") and not any(map(is_in_row_blocks, run.plan.pruned)):
            raise InputError(
                "permute_channels: no layer is pruned in blocks of output channels, such as sparse_block: [4, 1]"
            )
    single = [layer for layer in run.plan.pruned if layer.block_note]
    if single:
        rank_zero_info(
            f"note: {len(single)} of {len(run.plan.pruned)} layers are pruned as single weights: {single[0].name}: "
            f"{single[0].block_note}"
        )
    if recipe.mnn_block is not None:
        require_packages()


def check_plan(recipe: Recipe, plan: PrunePlan) -> None:
    """Checks that every planned layer reaches its ratio and will run sparse in Paddle-Lite, and in MNN if asked for.

    Raises:
        InputError: a layer would not; the message names the first one.
    """
    settings = recipe.pruning_config()
    with config.prefix_errors(recipe.files):
        plan.require_layers()
        settings.check_reachable(plan)
        least = settings.min_sparsity(plan)
        lite.check_runs_sparse(plan, least)
        if recipe.mnn_block is not None:
            mnn.check_runs_sparse(plan, least, recipe.mnn_block)
