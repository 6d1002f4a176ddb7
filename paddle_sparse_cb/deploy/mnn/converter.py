"""Converts ONNX models to MNN, with sparse kernels or without, through MNN's extension module."""

from __future__ import annotations

from pathlib import Path

from ...errors import InputError
from ...utils.files import atomic_write
from ..isolated import require_modules, run_isolated

# The blocks of output channels that MNN's kernels know; 4 and 8 have kernels of their own on most processors.
BLOCKS = (1, 2, 4, 8)

# The extension module alone. MNN's `mnnconvert` command would also import MNN's logger, which installs a package with
# pip and sends usage data.
_CONVERT = "import _tools\n_tools.mnnconvert(sys.argv)\n"


def convert(onnx: Path, output: Path, *, sparse: bool, block: int = 1) -> Path:
    """Converts an ONNX model to MNN.

    Args:
        onnx: the `.onnx` file.
        output: the `.mnn` file to write. It appears only when it is complete.
        sparse: whether to use sparse kernels for convolutions with enough zeros (see `constraints`).
        block: the number of output channels that are zero together, one of `BLOCKS`: 1 chooses MNN's kernels for
            zeros in any positions.

    Returns:
        `output`.

    Raises:
        InputError: the `.onnx` file is missing, or the block is not one of `BLOCKS`.
        PipelineError: MNN is not installed, or cannot convert the model.
    """
    if block not in BLOCKS:
        raise InputError(f"MNN's blocks of output channels have a size of {', '.join(map(str, BLOCKS))}, got {block!r}")
    if not onnx.is_file():
        raise InputError(f"{onnx}: no such file")
    require_modules("mnn", "_tools")
    with atomic_write(output) as scratch:
        arguments: list[str | Path] = ["-f", "ONNX", "--modelFile", onnx, "--MNNModel", scratch, "--bizCode", "MNN"]
        if sparse:
            arguments.append("--detectSparseSpeedUp")
        if sparse and block > 1:
            parameters = scratch.with_name("compression.bin")
            parameters.write_bytes(_pruning_message(block))
            arguments += ["--compressionParamsFile", parameters]
        run_isolated(f"MNN's converter failed on {onnx}", _CONVERT, arguments, expected=scratch)
    return output


def _pruning_message(block: int) -> bytes:
    """Returns MNN's `Pipeline` message that asks for kernels for blocks of output channels.

    The message is so small that it is written by hand: a key is `field number << 3 | type`, with type 0 for a number
    and 2 for bytes with their length (MNN 3.6: tools/converter/source/compression/MNN_compression.proto).
    """
    blocks = _field(4, block)  # SIMDOCPrunerParams.oc_blocks
    prune = _field(1, 1) + _field(3, blocks)  # PruneParams: type SIMD_OC, simd_oc_pruner_params
    algorithm = _field(1, 1) + _field(3, prune)  # CompressionAlgo: type PRUNE, prune_params
    return _field(1, b"0.0.0") + _field(2, algorithm)  # Pipeline: version, algo


def _field(number: int, value: int | bytes) -> bytes:
    """Encodes a field of a protobuf message; numbers and lengths below 128 take one byte."""
    if isinstance(value, int):
        return bytes([number << 3, value])
    return bytes([number << 3 | 2, len(value)]) + value
