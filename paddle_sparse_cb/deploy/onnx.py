"""Converts an exported model to ONNX with paddle2onnx."""

from __future__ import annotations

from pathlib import Path

from ..utils.files import atomic_write
from ..utils.weight_files import parse_program
from .isolated import require_modules, run_isolated

OPSET = 14  # the first with HardSwish, without which paddle2onnx 1.2 aborts on PicoDet

_EXPORT = f"""
import paddle2onnx
paddle2onnx.export(
    sys.argv[1], sys.argv[2], sys.argv[3], opset_version={OPSET}, auto_upgrade_opset=False, verbose=False,
    enable_onnx_checker=True,
)
"""


def export_onnx(prefix: Path, output: Path) -> Path:
    """Converts an exported model to ONNX.

    paddle2onnx ends the process at some errors, so it runs in a process of its own.

    Args:
        prefix: the exported model's path without `.pdmodel`.
        output: the `.onnx` file to write. It appears only when it is complete.

    Returns:
        `output`.

    Raises:
        InputError: `.pdmodel` is missing or damaged.
        PipelineError: paddle2onnx is not installed, or cannot convert the model.
    """
    require_modules("mnn", "paddle2onnx")
    parse_program(prefix)
    with atomic_write(output) as scratch:
        files = [f"{prefix}.pdmodel", f"{prefix}.pdiparams", scratch]
        run_isolated(f"paddle2onnx failed on {prefix}.pdmodel", _EXPORT, files, expected=scratch)
    return output
