"""`paddle-sparse bench --runner` and `--adb`: times the files of a recipe, or those in a folder, on another device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..deploy.bench.devices import DeviceOptions, measure_on_device, runner_suffix
from ..deploy.bench.run import make_result
from ..errors import InputError

if TYPE_CHECKING:
    from .schema import Recipe

_FULL_MODEL = "a .nb file with post-processing has non-maximum suppression in it, unlike a .mnn file"


def bench_folder_on_device(folder: Path, options: DeviceOptions) -> dict[str, Any]:
    """Times the `.nb` and `.mnn` files in a folder on a device.

    Returns:
        `machine`, `rows` and `notes`; see `make_result`.

    Raises:
        InputError: there are no files for the runners, or a file, a runner or the device cannot be used.
        PipelineError: a runner failed.
    """
    return _bench(folder, options, "")


def bench_recipe_on_device(recipe: Recipe, options: DeviceOptions) -> dict[str, Any]:
    """Times the `.nb` and `.mnn` files of a trained recipe on a device; see `bench_folder_on_device`."""
    asks_mnn = any(runner_suffix(command) == ".mnn" for command in options.runners)
    arguments = f"{recipe.path}{' -o export.mnn=true' if asks_mnn and recipe.mnn_block is None else ''}"
    steps = ("export", "optimize") if (recipe.output / "report.json").is_file() else ("train",)
    commands = " && ".join(f"paddle-sparse {step} {arguments}" for step in steps)
    return _bench(recipe.output, options, f"; run: {commands}")


def _bench(folder: Path, options: DeviceOptions, what_to_run: str) -> dict[str, Any]:
    rows = measure_on_device(folder, options)
    missing = [
        suffix
        for suffix in dict.fromkeys(map(runner_suffix, options.runners))
        if not any(row.file.endswith(suffix) for row in rows)
    ]
    if not rows:
        raise InputError(f"{folder}: no {' or '.join(missing)} file for the device{what_to_run}")
    notes = [f"no {suffix} file in {folder}{what_to_run}" for suffix in missing]
    return make_result(rows, [*notes, *([_FULL_MODEL] if len({row.runtime for row in rows}) > 1 else [])])
