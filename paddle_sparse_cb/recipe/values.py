"""Checks values of a recipe that would otherwise be found wrong late, or never."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import InputError
from ..utils.validation import check_count, check_flag, check_keys

# Arguments of `TrainingCurves` that the Sparsity block of a recipe may give beside those of the pruner.
LOGGING_KEYS = ("log_freq", "per_layer", "visualdl")
# What a recipe may give beside the settings of the pruner: options of the curves, and a step before the training.
OTHER_KEYS = (*LOGGING_KEYS, "permute_channels")

_MAX_WORKERS = 1024
_SLIM = "UnstructuredPruner"  # the only one of PaddleDetection's slim methods that this package implements
# PaddleDetection's keys, of which the first two have an effect here, and ours.
_EXPORT_KEYS = ("post_process", "nms", "benchmark", "fuse_conv_bn", "int8", "lite", "mnn", "bench")
_MIN_COUNTS = {
    "epoch": 1,
    "num_classes": 1,
    "snapshot_epoch": 1,
    "snapshot_iter": 1,
    "log_iter": 1,
    "worker_num": 0,
    "seed": 0,
}


def check_values(content: dict[str, Any]) -> None:
    """Checks the values that no module of PaddleDetection checks.

    Raises:
        InputError: a value is of the wrong type or out of range; the message names its key.
    """
    for key, least in _MIN_COUNTS.items():
        if key in content:
            check_count(key, content[key], least)
    if content.get("slim", _SLIM) != _SLIM:
        raise InputError(f"slim must be {_SLIM}, got {content['slim']!r}")
    for key in ("architecture", "save_dir", "pretrain_weights", "weights"):
        is_null = key in ("pretrain_weights", "weights") and content.get(key) is None
        if not is_null and not isinstance(content.get(key, ""), str):
            raise InputError(f"{key} must be a string, got {content[key]!r}")
    if content.get("worker_num", 0) > _MAX_WORKERS:
        raise InputError(f"worker_num must be at most {_MAX_WORKERS}, got {content['worker_num']}")
    check_weights_url("pretrain_weights", content.get("pretrain_weights") or "")
    if content.get("seed", 0) >= 2**32:
        raise InputError(f"seed must be less than 2**32, got {content['seed']}")
    if content.get("metric", "COCO") not in ("COCO", "VOC"):
        raise InputError(f"metric must be COCO or VOC, got {content['metric']!r}")
    if content.get("resume_weights"):
        raise InputError("resume_weights: use --resume to resume a training")
    if not isinstance(content.get("use_gpu", True), bool):
        raise InputError(f"use_gpu must be true or false, got {content['use_gpu']!r}")
    _check_mixed_precision(content)
    _check_export(content.get("export") or {})


def check_save_dir(save_dir: object) -> None:
    """Checks that a recipe, which may come from a stranger, writes to the folder in which it is run.

    Raises:
        InputError: the output folder is outside of it.
    """
    if isinstance(save_dir, str) and (Path(save_dir).is_absolute() or ".." in Path(save_dir).parts):
        raise InputError(
            f"save_dir: {save_dir} is outside the folder in which the recipe is run; only the command "
            f"line may name it: -o save_dir={save_dir}"
        )


def check_weights_url(key: str, source: str) -> None:
    """Raises InputError if a source of weights is a URL that names no weights."""
    if "://" in source and not source.partition("#")[0].endswith(".pdparams"):
        raise InputError(f"{key}: a URL must end in .pdparams, optionally followed by #sha256=DIGEST, got {source}")


def check_others(sparsity: dict[str, Any]) -> None:
    """Checks the values of `OTHER_KEYS` in a Sparsity block.

    Raises:
        InputError: a value is of the wrong type or out of range.
    """
    check_count("log_freq", sparsity.get("log_freq", 1), least=1)
    for key in ("per_layer", "visualdl", "permute_channels"):
        check_flag(key, sparsity.get(key, False))


def _check_mixed_precision(content: dict[str, Any]) -> None:
    """Checks PaddleDetection's `amp` keys, which Paddle accepts without a check on a CPU."""
    if not isinstance(content.get("amp", False), bool):
        raise InputError(f"amp must be true or false, got {content['amp']!r}")
    if content.get("amp_level", "O1") not in ("O1", "O2"):
        raise InputError(f"amp_level must be O1 or O2, got {content['amp_level']!r}")
    if "init_loss_scaling" in content:
        check_count("init_loss_scaling", content["init_loss_scaling"], 1)
    for key in ("custom_white_list", "custom_black_list"):
        value = content.get(key) or []
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            raise InputError(f"{key} must be a list of names of operators, got {value!r}")


def _check_export(export: Any) -> None:
    if not isinstance(export, dict):
        raise InputError(f"export must be a mapping, got {export!r}")
    check_keys(export, _EXPORT_KEYS, "export")
    for key, value in export.items():
        if key == "lite":
            if not isinstance(value, dict):
                raise InputError(f"export.lite must be a mapping of options of paddle_lite_opt, got {value!r}")
        elif key == "mnn":
            if not isinstance(value, (bool, dict)):
                raise InputError(f"export.mnn must be true, false or a mapping such as {{block: 4}}, got {value!r}")
            if isinstance(value, dict):
                check_keys(value, ("block",), "export.mnn")
        elif key == "int8" and value:
            raise InputError(
                "export.int8: Paddle-Lite computes hard swish, which PicoDet uses, wrongly in sparse INT8 "
                "models; QuantizeInt8 is for networks without it"
            )
        elif not isinstance(value, bool):
            raise InputError(f"export.{key} must be true or false, got {value!r}")
