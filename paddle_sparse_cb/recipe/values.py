"""Checks values of a recipe that would otherwise be found wrong late, or never."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..utils.validation import check_count, check_keys

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
    for error in value_errors(content):
        raise error


def value_errors(content: dict[str, Any]) -> Iterator[InputError]:
    """Yields all that `check_values` finds."""
    for key, least in _MIN_COUNTS.items():
        if key in content:
            yield from _caught(check_count, key, content[key], least)
    if content.get("slim", _SLIM) != _SLIM:
        yield InputError(f"slim must be {_SLIM}, got {content['slim']!r}")
    for key in ("architecture", "save_dir", "pretrain_weights", "weights"):
        is_null = key in ("pretrain_weights", "weights") and content.get(key) is None
        if not is_null and not isinstance(content.get(key, ""), str):
            yield InputError(f"{key} must be a string, got {content[key]!r}")
    workers, seed = content.get("worker_num", 0), content.get("seed", 0)
    if isinstance(workers, int) and workers > _MAX_WORKERS:
        yield InputError(f"worker_num must be at most {_MAX_WORKERS}, got {workers}")
    if isinstance(seed, int) and seed >= 2**32:
        yield InputError(f"seed must be less than 2**32, got {seed}")
    source = content.get("pretrain_weights") or ""
    if isinstance(source, str):
        yield from _caught(check_weights_url, "pretrain_weights", source)
    if content.get("metric", "COCO") not in ("COCO", "VOC"):
        yield InputError(f"metric must be COCO or VOC, got {content['metric']!r}")
    if content.get("resume_weights"):
        yield InputError("resume_weights: use --resume to resume a training")
    if not isinstance(content.get("use_gpu", True), bool):
        yield InputError(f"use_gpu must be true or false, got {content['use_gpu']!r}")
    yield from _mixed_precision_errors(content)
    yield from _export_errors(content.get("export") or {})


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


def _caught(check: Callable[..., object], *arguments: Any) -> Iterator[InputError]:
    try:
        check(*arguments)
    except InputError as error:
        yield error


def _mixed_precision_errors(content: dict[str, Any]) -> Iterator[InputError]:
    """Checks PaddleDetection's `amp` keys, which Paddle accepts without a check on a CPU."""
    if not isinstance(content.get("amp", False), bool):
        yield InputError(f"amp must be true or false, got {content['amp']!r}")
    if content.get("amp_level", "O1") not in ("O1", "O2"):
        yield InputError(f"amp_level must be O1 or O2, got {content['amp_level']!r}")
    if "init_loss_scaling" in content:
        yield from _caught(check_count, "init_loss_scaling", content["init_loss_scaling"], 1)
    for key in ("custom_white_list", "custom_black_list"):
        value = content.get(key) or []
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            yield InputError(f"{key} must be a list of names of operators, got {value!r}")


def _export_errors(export: Any) -> Iterator[InputError]:
    if not isinstance(export, dict):
        yield InputError(f"export must be a mapping, got {export!r}")
        return
    for key, value in export.items():
        yield from _caught(check_keys, [key], _EXPORT_KEYS, "export")
        if key == "lite":
            if not isinstance(value, dict):
                yield InputError(f"export.lite must be a mapping of options of paddle_lite_opt, got {value!r}")
        elif key == "mnn":
            if not isinstance(value, (bool, dict)):
                yield InputError(f"export.mnn must be true, false or a mapping such as {{block: 4}}, got {value!r}")
            if isinstance(value, dict):
                yield from _caught(check_keys, value, ("block",), "export.mnn")
        elif key == "int8" and value:
            yield InputError(
                "export.int8: Paddle-Lite computes hard swish, which PicoDet uses, wrongly in sparse INT8 "
                "models; QuantizeInt8 is for networks without it"
            )
        elif key in _EXPORT_KEYS and not isinstance(value, bool):
            yield InputError(f"export.{key} must be true or false, got {value!r}")
