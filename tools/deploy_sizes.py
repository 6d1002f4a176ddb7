"""Prints the sizes of dense and sparse `.nb` files in FP32 and INT8: the table of docs/deploy.md.

Uses untrained networks of paddle.vision pruned in one step, because sizes depend only on shapes and zeros. Each file is
verified. Takes one to two minutes.
"""

import contextlib
import io
import tempfile
from pathlib import Path

import numpy as np
import paddle
from paddle.static import InputSpec

from paddle_sparse_cb import GMPPruner, HookContext, make_plan, measure_sparsity
from paddle_sparse_cb.deploy import Export, OptimizeLite, QuantizeInt8, fail_on_mismatch, print_verification, verify
from paddle_sparse_cb.utils.tables import markdown_table

SPEC = [InputSpec([1, 3, 64, 64], "float32", "image")]


def deploy(name: str, ratio: float, folder: Path) -> HookContext:
    """Prunes a network in one step, exports, quantises and optimizes it for Paddle-Lite, and verifies the files."""
    paddle.seed(0)
    network = getattr(paddle.vision.models, name)(num_classes=10)
    plan = make_plan(network, SPEC)
    GMPPruner(
        network, ratio=ratio, local_sparsity=True, plan=plan, configs={"initial_ratio": ratio, "pruning_steps": 1}
    ).step()
    context = HookContext(network, folder, plan, measure_sparsity(network, plan), ratio)
    noise = np.random.RandomState(0).rand(8, 3, 64, 64).astype("float32")
    quantize = QuantizeInt8([{"image": image} for image in noise])
    for hook in (Export(SPEC), quantize, OptimizeLite(), verify, fail_on_mismatch):
        hook(context)
    return context


def main() -> None:
    """Prints the verification of the last network and the table."""
    rows = []
    for name in ("mobilenet_v1", "mobilenet_v2"):
        for ratio in (0.75, 0.85, 0.95):
            with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
                context = deploy(name, ratio, Path(folder))
            fp32, int8 = context.checks["nb"], context.checks["nb_int8"]
            rows.append(
                (
                    name,
                    f"{ratio:.0%}",
                    f"{fp32['sparse_convs']} of {fp32['convs']}",
                    *(f"{check[size]:,}" for check in (fp32, int8) for size in ("dense_bytes", "sparse_bytes")),
                )
            )
    print_verification(context)
    print(
        markdown_table(
            ("", "zeros", "sparse convolutions", "dense", "sparse", "INT8 dense", "INT8 sparse"), rows, "lllrrrr"
        )
    )


if __name__ == "__main__":
    main()
