"""Which layers MNN runs sparse.

MNN's converter stores the weight of a convolution or linear layer sparse if enough of it is zero, whatever its kernel,
stride and groups are (MNN 3.6: tools/converter/source/common/AddSparseInfo.cpp). The zeros count in whole blocks of
output channels. The CPU backend runs all of them with sparse kernels except depthwise convolutions, in FP32, on ARM and
on x86 with AVX2 (source/backend/cpu/compute/ConvolutionFloatFactory.cpp).
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from ...errors import InputError
from ...pruning.plan import PlannedLayer, PrunePlan
from ...utils.weight_files import parse_program
from ..lite.pooling import find_uneven_pools

# The numbers of output channels that MNN's kernels take together. 4 has a kernel of its own on every processor, 8 with
# AVX-512; elsewhere, and for 2, the next smaller one is used.
BLOCKS = (1, 2, 4, 8)

# The fraction of zeros in whole blocks above which MNN stores a weight sparse.
THRESHOLDS = {1: 0.6, 2: 0.5, 4: 0.3, 8: 0.3}


def check_block(block: int) -> int:
    """Returns the size of a block.

    Raises:
        InputError: it is not one of `BLOCKS`.
    """
    if type(block) is not int or block not in BLOCKS:
        raise InputError(f"MNN's block must be one of {', '.join(map(str, BLOCKS))} output channels, got {block!r}")
    return block


# Operators of Paddle that are computed wrongly, without a message: in MNN 3.6, and as converted by paddle2onnx 2.1.
_WRONG_IN_MNN = ("hard_shrink", "softshrink")
_WRONG_IN_PADDLE2ONNX_2 = ("brelu", "leaky_relu")


def check_operators(prefix: Path) -> None:
    """Checks that an exported model has no operator that would be computed wrongly.

    Args:
        prefix: the model's path without `.pdmodel`.

    Raises:
        InputError: it has one; the message names it.
    """
    program = parse_program(prefix)
    uneven = find_uneven_pools(program)
    if uneven:
        raise InputError(
            f"{prefix}.pdmodel: {uneven[0]} is computed wrongly by MNN when it is converted with paddle2onnx: height "
            "and width of its input must be multiples of its output size, or use another pooling"
        )
    operators = [op for block in program.blocks for op in block.ops]
    wrong = [*_WRONG_IN_MNN, *(_WRONG_IN_PADDLE2ONNX_2 if version("paddle2onnx") >= "2" else ())]
    for op in operators:
        numbers = {attribute.name: attribute.f for attribute in op.attrs if attribute.HasField("f")}
        # ONNX has softplus without parameters; a threshold of 20, Paddle's default, makes no difference.
        is_other_softplus = op.type == "softplus" and (numbers.get("beta") != 1 or numbers.get("threshold", 0) < 20)
        if op.type in wrong or is_other_softplus:
            raise InputError(
                f"{prefix}.pdmodel: the operator {op.type} {'with these parameters ' if is_other_softplus else ''}is "
                f"computed wrongly by MNN when it is converted with paddle2onnx {version('paddle2onnx')}; use another "
                "activation"
            )


def find_dense_layers(plan: PrunePlan, min_sparsity: Mapping[str, float], block: int = 1) -> dict[str, str]:
    """Finds the planned layers that MNN would run dense.

    Args:
        plan: which weights are pruned.
        min_sparsity: the least fraction of zeros of each planned weight at the end of training, by structured name
            (see `pruning.min_sparsity`). With a block above 1, MNN counts only zeros in whole blocks.
        block: see `converter.convert`.

    Returns:
        The reason for each such layer, by structured name.
    """
    reasons = {layer.name: _dense_reason(layer, min_sparsity.get(layer.name), block) for layer in plan.pruned}
    return {name: reason for name, reason in reasons.items() if reason}


def _dense_reason(layer: PlannedLayer, ratio: float | None, block: int) -> str:
    rows, threshold = layer.block[0] if layer.block else block, THRESHOLDS[block]
    if layer.mnn_dense_reason or ratio is None:
        return layer.mnn_dense_reason
    if rows % block:
        return f"its zeros are in blocks of {rows} output channels, and only blocks of {block} count"
    return f"it may end with as few as {ratio:.2%} zeros, and runs sparse above {threshold:.0%}" * (ratio <= threshold)


def check_runs_sparse(plan: PrunePlan, min_sparsity: Mapping[str, float], block: int = 1) -> None:
    """Checks before training that MNN will run every planned layer sparse.

    Args:
        plan: see `find_dense_layers`.
        min_sparsity: see `find_dense_layers`.
        block: see `converter.convert`.

    Raises:
        InputError: a layer would run dense; the message names the first such layer and the reason.
    """
    dense = find_dense_layers(plan, min_sparsity, block)
    if dense:
        name, reason = next(iter(dense.items()))
        more = f" (and {len(dense) - 1} more of {len(plan.pruned)} planned layers)" if len(dense) > 1 else ""
        raise InputError(f"MNN would keep {name} dense: {reason}{more}; skip it, or change ratio, scope or block")
