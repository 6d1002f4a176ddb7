"""Converts ONNX models to MNN, with sparse kernels or without, through MNN's extension module."""

from __future__ import annotations

import hashlib
import uuid
from pathlib import Path

from ...errors import InputError
from ...utils.files import atomic_write
from ..isolated import require_modules, run_isolated
from .constraints import check_block

# The extension module alone. MNN's `mnnconvert` command would also import MNN's logger, which installs a package with
# pip and sends usage data.
_CONVERT = "import _tools\n_tools.mnnconvert(sys.argv)\n"


def convert(onnx: Path, output: Path, *, sparse: bool, block: int = 1) -> Path:
    """Converts an ONNX model to MNN. Equal models and arguments give equal files.

    Args:
        onnx: the `.onnx` file.
        output: the `.mnn` file to write. It appears only when it is complete.
        sparse: whether to use sparse kernels for convolutions with enough zeros (see `constraints`).
        block: the number of output channels that are zero together, one of `constraints.BLOCKS`: 1 chooses MNN's
            kernels for zeros in any positions.

    Returns:
        `output`.

    Raises:
        InputError: the `.onnx` file is missing, or the block is not one of `constraints.BLOCKS`.
        PipelineError: MNN is not installed, or cannot convert the model.
    """
    check_block(block)
    if not onnx.is_file():
        raise InputError(f"{onnx}: no such file")
    require_modules("mnn", "MNN")
    block = block if sparse else 1
    with atomic_write(output) as scratch:
        parameters = scratch.with_name("parameters.bin")  # `.json` would be read in another format
        parameters.write_bytes(_pipeline_message(_identifier(onnx, sparse, block), block))
        arguments: list[str | Path] = ["-f", "ONNX", "--modelFile", onnx, "--MNNModel", scratch, "--bizCode", "MNN"]
        arguments += ["--compressionParamsFile", parameters, *(["--detectSparseSpeedUp"] if sparse else [])]
        run_isolated(f"MNN's converter failed on {onnx}", _CONVERT, arguments, expected=scratch)
    return output


def _identifier(onnx: Path, sparse: bool, block: int) -> str:
    """Returns the identifier stored in the `.mnn` file, which would be random otherwise."""
    content = hashlib.sha256(onnx.read_bytes()).hexdigest()
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{content} {sparse} {block}"))


def _pipeline_message(identifier: str, block: int) -> bytes:
    """Returns MNN's `Pipeline` message, which names the model and asks for kernels for blocks of output channels.

    The message is so small that it is written by hand: a key is `field number << 3 | type`, with type 0 for a number
    and 2 for bytes with their length (MNN 3.6: tools/converter/source/compression/MNN_compression.proto).
    """
    message = _field(1, b"0.0.0")  # Pipeline.version
    if block > 1:
        blocks = _field(4, block)  # SIMDOCPrunerParams.oc_blocks
        prune = _field(1, 1) + _field(3, blocks)  # PruneParams: type SIMD_OC, simd_oc_pruner_params
        message += _field(2, _field(1, 1) + _field(3, prune))  # Pipeline.algo: type PRUNE, prune_params
    return message + _field(3, identifier.encode())  # Pipeline.mnn_uuid


def _field(number: int, value: int | bytes) -> bytes:
    """Encodes a field of a protobuf message; numbers and lengths below 128 take one byte."""
    if isinstance(value, int):
        return bytes([number << 3, value])
    return bytes([number << 3 | 2, len(value)]) + value
