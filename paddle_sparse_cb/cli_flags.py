"""The flags of single commands, and the values that they take."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from .errors import InputError

_Value = TypeVar("_Value")


def add_training_flags(command: argparse.ArgumentParser) -> None:
    """Adds the flags of PaddleDetection's tools/train.py."""
    command.add_argument(
        "--eval",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="evaluate at each checkpoint and keep the best one (default)",
    )
    command.add_argument("--amp", action="store_true", help="mixed precision, the same as -o amp=true")
    command.add_argument(
        "-r",
        "--resume",
        metavar="CHECKPOINT",
        nargs="?",
        const="last",
        help="resume from a checkpoint; without a name, from the newest complete one of the recipe or "
        "of the dense recipe that it starts from",
    )
    command.add_argument(
        "--overwrite",
        action="store_true",
        help="a new training removes the files of an earlier one instead of moving them to earlier.<number>",
    )
    command.add_argument(
        "--allow-config-change",
        action="store_true",
        help="with --resume: the recipe may differ from the checkpoint's, in the length of its epochs too",
    )


def add_bench_flags(command: argparse.ArgumentParser) -> None:
    """Adds the flags of `paddle-sparse bench`."""
    command.add_argument(
        "--threads", metavar="N,...", help="numbers of threads, such as 1,4 (default: 1 and the number of CPUs)"
    )
    command.add_argument(
        "--ratio",
        metavar="R,...",
        help="prune untrained weights at once to these ratios, such as 0.75,0.85, instead of measuring trained ones",
    )
    command.add_argument(
        "--block",
        metavar="RxC,...",
        help="blocks of zeros, rows (output channels) x columns, such as 1x1,4x1 (default: both, and the recipe's)",
    )
    command.add_argument("--seconds", type=float, metavar="S", help="time for the measurement itself (default: 30)")
    command.add_argument("--eval", action="store_true", help="measure the mAP of trained weights in each runtime")
    command.add_argument(
        "--layers",
        metavar="FILE",
        nargs="?",
        const="",
        help="measure each layer on MNN, print where the time goes, and write FILE (default: layers.json in the "
        "recipe's output folder)",
    )
    command.add_argument(
        "--runner",
        metavar="CMD",
        action="append",
        default=[],
        help="time the .nb or .mnn files on a device instead: a command that starts a lite_runner or mnn_runner there, "
        "such as 'ssh pi ./lite_runner'; may be repeated",
    )
    command.add_argument(
        "--adb",
        metavar="SERIAL",
        nargs="?",
        const="",
        help="the device is an Android device, and --runner is the file of a runner that is built for it",
    )
    command.add_argument(
        "--cluster",
        metavar="NAME,...",
        help="cores of the device to run on: any (default), big, little, or several of them",
    )
    command.add_argument("--json", action="store_true", help="print JSON instead of the table")
    command.add_argument(
        "--fail-under",
        metavar="SPEEDUP",
        help="exit with 1 if no sparse model is that much faster than the fastest dense one: a fraction such as 0.45, "
        "or 45%%",
    )


def add_plan_flags(command: argparse.ArgumentParser) -> None:
    """Adds the flags of `paddle-sparse plan`."""
    command.add_argument(
        "--measure",
        action="store_true",
        help="prune untrained weights at once, and print size and latency for several ratios and blocks instead",
    )
    command.add_argument("--ratio", metavar="R,...", help="with --measure: ratios (default: 0.6,0.75,0.85,0.9)")
    command.add_argument(
        "--block", metavar="RxC,...", help="with --measure: blocks of zeros, rows x columns (default: 1x1,2x1,4x1)"
    )


def add_sensitivity_flags(command: argparse.ArgumentParser) -> None:
    """Adds the flags of `paddle-sparse sensitivity`."""
    command.add_argument("--ratio", metavar="R,...", help="ratios of each layer (default: 0.6,0.7,0.8,0.9,0.95)")
    command.add_argument(
        "--metric",
        choices=("loss", "map"),
        default="loss",
        help="the loss on images of the training data, cheap and smooth (default), or mAP on the evaluation data",
    )
    command.add_argument(
        "--images", type=int, metavar="N", help="number of training images for the loss (default: 128)"
    )


def add_allocation_flags(command: argparse.ArgumentParser) -> None:
    """Adds the flags of `paddle-sparse allocate`."""
    command.add_argument(
        "--target-sparsity", type=float, metavar="S", help="the least share of zeros in the pruned layers, such as 0.85"
    )
    command.add_argument(
        "--target-macs",
        type=float,
        metavar="F",
        help="the multiply-accumulates that remain at most, as a fraction of the whole dense network's, such as 0.35",
    )
    command.add_argument(
        "--macs-of-ratio",
        type=float,
        metavar="R",
        help="at most the multiply-accumulates that would remain with this ratio in all layers, such as 0.85",
    )
    command.add_argument(
        "--target-latency", type=float, metavar="MS", help="milliseconds of the network at most, with --costs"
    )
    command.add_argument(
        "--costs", type=Path, metavar="FILE", help="the layers.json of bench --layers, measured at several ratios"
    )
    command.add_argument(
        "--output", type=Path, metavar="FILE", help="the YAML file (default: ratios.yml in the output folder)"
    )


def split_list(flag: str, text: str | None, parse: Callable[[str], _Value]) -> list[_Value]:
    """Parses a list separated by commas; None and an empty text are an empty list.

    Raises:
        InputError: an item is invalid.

    Examples:
        >>> split_list("--threads", "1,2", int)
        [1, 2]
    """
    try:
        return [parse(item.strip()) for item in (text or "").split(",") if item.strip()]
    except InputError:
        raise
    except ValueError:
        raise InputError(f"{flag}: invalid value {text!r}") from None


def parse_block(text: str) -> tuple[int, int]:
    """Parses a block such as `4x1`.

    Raises:
        InputError: it is none.
    """
    match = re.fullmatch(r"([1-9]\d{0,3})x([1-9]\d{0,3})", text)
    if not match:
        raise InputError(f"--block: must be rows x columns, such as 4x1, got {text!r}")
    return int(match[1]), int(match[2])


def parse_speedup(text: str) -> float:
    """Parses a speed-up: a fraction, or a percentage with its sign.

    Raises:
        InputError: it is none.

    Examples:
        >>> parse_speedup("0.45"), parse_speedup("45%")
        (0.45, 0.45)
    """
    match = re.fullmatch(r"([+-]?\d*\.?\d+)(%?)", text.strip())
    if not match:
        raise InputError(f"--fail-under: must be a speed-up such as 0.45 or 45%, got {text!r}")
    value = float(match[1])
    if match[2]:
        return value / 100
    if value >= 10:
        raise InputError(f"--fail-under: {text} is {value:g} times faster; did you mean {text}%?")
    return value
