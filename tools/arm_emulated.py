#!/usr/bin/env python3
"""Runs dense and sparse MNN models on an emulated ARM processor: `make arm`.

Prints the instructions that one inference of PicoDet executes, dense and with random zeros and blocks, and compares the
outputs with those of this machine. The weights are untrained and pruned at once. Then compares single operators in
Paddle, in MNN on this machine and in MNN on ARM. Exit code 1 if outputs differ or a sparse model saves nothing.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import zlib  # noqa: F401  before paddle, as the package does
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import arm_emulation
import arm_operators
import numpy as np
import paddle
from paddle import nn
from paddle.static import InputSpec

from paddle_sparse_cb import GMPPruner, make_plan
from paddle_sparse_cb.deploy.export import export
from paddle_sparse_cb.deploy.mnn.converter import convert
from paddle_sparse_cb.deploy.mnn.runtime import MNNModel
from paddle_sparse_cb.deploy.onnx import export_onnx
from paddle_sparse_cb.detection import config
from paddle_sparse_cb.detection.network import DetectionNetwork, build_network
from paddle_sparse_cb.errors import PipelineError
from paddle_sparse_cb.recipe.schema import read_recipe
from paddle_sparse_cb.utils.tables import render_table

RECIPE = Path(__file__).parent.parent / "recipes" / "picodet_m_320_coco.yml"
MAX_ERROR = 1e-3  # relative to the range of an output; rounding makes some 1e-5


@dataclass(frozen=True)
class Row:
    """The measurement of one model.

    Attributes:
        ratio: target ratio of the pruned weights; 0 for the dense model.
        block: output channels that are pruned as one.
        size: bytes of the file.
        instructions: of one inference.
        error: the largest difference to the outputs on this machine, relative to the range of the output.
    """

    ratio: float
    block: int
    size: int
    instructions: int
    error: float


def relative_error(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> float:
    """Returns the largest difference, relative to the range of the values of each output."""
    return max(
        float(np.abs(found[name] - array).max() / max(float(np.ptp(array)), 1e-30)) for name, array in expected.items()
    )


def calibrate(detector: nn.Layer, images: paddle.Tensor) -> None:
    """Sets the statistics of all batch norms to those of images.

    Otherwise the outputs of untrained weights hardly depend on the input, and after a single image on its rounding.
    """
    norms = [layer for layer in detector.sublayers() if isinstance(layer, nn.BatchNorm2D)]
    detector.eval()
    for norm in norms:
        norm.train()
        norm._momentum = 0.0
    with paddle.no_grad():
        detector({"image": images})
    for norm in norms:
        norm.eval()


def build(recipe: Path) -> DetectionNetwork:
    """Builds the network of a recipe with the same untrained weights each time."""
    paddle.seed(0)
    with paddle.utils.unique_name.guard():
        return build_network(config.load(read_recipe(recipe).content, str(recipe)))


def make_model(recipe: Path, size: int, ratio: float, block: int, folder: Path) -> Path:
    """Prunes an untrained network at once and converts it; returns the `.mnn` file."""
    network = build(recipe)
    if ratio:
        spec = [InputSpec([1, 3, size, size], "float32"), InputSpec([1, 2], "float32"), InputSpec([1, 1], "int64")]
        plan = make_plan(network, spec, skip=network.prediction_layers())
        configs = {"initial_ratio": ratio, "pruning_steps": 1}
        GMPPruner(network, ratio=ratio, local_sparsity=True, plan=plan, sparse_block=(block, 1), configs=configs).step()
    with network.export_mode(size, size, post_process=False) as (detector, specs):
        calibrate(detector, paddle.to_tensor(np.concatenate([make_image(size, seed) for seed in range(8)])))
        prefix = export(detector, folder / f"{ratio:.0%}_{block}" / "model", specs)
    onnx = export_onnx(prefix, prefix.with_suffix(".onnx"))
    return convert(onnx, prefix.with_suffix(".mnn"), sparse=ratio > 0, block=block)


def make_image(size: int, seed: int = 0) -> np.ndarray:
    """Returns waves and noise of the shape [1, 3, size, size]."""
    rows, columns = np.mgrid[:size, :size] / 16.0 + seed
    waves = np.stack([np.sin(rows), np.cos(columns), np.sin(rows + columns)])[None]
    return (waves + np.random.RandomState(seed).randn(*waves.shape)).astype("float32")


def measure(emulator: arm_emulation.Emulator, recipe: Path, size: int, ratios: list[float], folder: Path) -> list[Row]:
    """Measures the dense model, and for each ratio one with random zeros and one with blocks of 4x1."""
    cases = [(0.0, 1), *((ratio, block) for ratio in ratios for block in (1, 4))]
    files = {case: make_model(recipe, size, *case, folder) for case in cases}
    image = make_image(size)
    inputs = {file: dict.fromkeys(MNNModel(file).inputs, image) for file in files.values()}
    emulated = emulator.run(inputs)
    return [
        Row(
            ratio,
            block,
            file.stat().st_size,
            emulated[file].instructions,
            relative_error(emulated[file].outputs, MNNModel(file).run(inputs[file])),
        )
        for (ratio, block), file in files.items()
    ]


def table(rows: list[Row]) -> str:
    """Renders the measurements; savings are (dense - sparse) / sparse, as in the published tables of latency."""
    dense = rows[0]
    cells = [
        (
            f"{row.ratio:.0%} in 4x1 blocks" if row.block > 1 else f"{row.ratio:.0%} random" if row.ratio else "dense",
            f"{row.size / 1e6:.2f}",
            f"{row.instructions / 1e6:.1f}",
            f"{dense.instructions / row.instructions - 1:+.0%}" if row.ratio else "",
            f"{row.error:.1e}",
        )
        for row in rows
    ]
    headers = ("zeros", "MB", "million instructions", "saved", "difference to x86")
    return render_table(headers, cells, "lrrrr")


def shortfalls(rows: list[Row]) -> list[str]:
    """Returns a line for each model that computes something else on ARM, or saves nothing."""
    lines = []
    for row in rows:
        name = f"{row.ratio:.0%}, blocks of {row.block}"
        if not row.error <= MAX_ERROR:
            lines.append(f"{name}: outputs on ARM differ by {row.error:.1e}, at most {MAX_ERROR:.0e} is expected")
        if row.ratio and row.instructions >= rows[0].instructions:
            lines.append(f"{name}: {row.instructions:,} instructions, dense {rows[0].instructions:,}")
    return lines


def main() -> int:
    """Prints the tables and checks them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", type=Path, default=RECIPE)
    parser.add_argument("--size", type=int, default=320, help="height and width of the input")
    parser.add_argument("--ratios", type=float, nargs="+", default=[0.75, 0.85])
    options = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as scratch:
            emulator = arm_emulation.prepare(Path(scratch))
            rows = measure(emulator, options.recipe, options.size, options.ratios, Path(scratch))
            operators = arm_operators.compare(emulator, Path(scratch))
    except PipelineError as error:
        print(f"arm_emulated: {error}", file=sys.stderr)
        return 1
    print(f"\n{options.recipe.name}, {options.size} px, MNN on an emulated Cortex-A76, one thread, FP32:\n")
    print(f"{table(rows)}\n\nLargest differences of single operators, relative to the range of the output:\n")
    print(arm_operators.table(operators))
    failed = [*shortfalls(rows), *arm_operators.shortfalls(operators)]
    for line in failed:
        print(f"falls short: {line}", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
