#!/usr/bin/env python3
"""Prints the published table of sparse PP-PicoDet with our measurements beside it: `make published-table`.

Size, latency and the number of sparse convolutions depend only on shapes and zeros: they are measured on untrained
weights, pruned in one step. For the sizes, they are exported with boxes and without NMS, optimized for ARM and
verified; the latency is that of this machine through MNN. Exit code 1 if a size or a count misses its requirement.
"""

from __future__ import annotations

import sys
import zlib  # noqa: F401  before paddle, as the package does
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import paddle
from paddle import nn
from paddle.static import InputSpec

from paddle_sparse_cb import GMPPruner, HookContext, PrunePlan, make_plan, measure_sparsity
from paddle_sparse_cb.deploy import Export, OptimizeLite, fail_on_mismatch, verify
from paddle_sparse_cb.deploy.lite.nb import count_convolutions
from paddle_sparse_cb.detection import config
from paddle_sparse_cb.detection.network import build_network
from paddle_sparse_cb.recipe.plan_measure import PlanRequest, measure_plan
from paddle_sparse_cb.recipe.schema import read_recipe
from paddle_sparse_cb.report.bench import describe_machine, signed
from paddle_sparse_cb.utils.tables import render_table

RECIPES = Path(__file__).parent.parent / "recipes"
FILES = {"m": "picodet_m_320_coco.yml", "s": "picodet_s_320_coco.yml"}
SIZE = 320
# mAP, MB, and milliseconds on one and on four threads of a Snapdragon 835: configs/picodet/legacy_model/pruner of
# PaddleDetection.
PUBLISHED = {
    ("m", 0.0): (30.9, 8.9, 127, 43),
    ("m", 0.75): (29.4, 5.6, 80, 32),
    ("m", 0.85): (27.6, 4.1, 65, 27),
    ("s", 0.0): (27.1, 4.6, 68, 26),
}
BLOCKS = ((1, 1), (4, 1))  # rows and columns of the zeros whose latency is measured
PUBLISHED_KIND = "3 blocks, as published"  # the last ones of the backbone's stages
KINDS = ("all", PUBLISHED_KIND, "none")  # squeeze-and-excitation that stays dense; prediction layers always do
# Requirements for "none": size relative to the dense file, and number of sparse convolutions without depthwise ones.
MOST_OF_DENSE = {0.75: 0.61, 0.85: 0.44}
LEAST_SPARSE = 100


@dataclass(frozen=True)
class Row:
    """The measurements of one file.

    Attributes:
        model: `m` or `s`.
        ratio: target ratio of the pruned weights; 0 for the dense file.
        squeeze: one of `KINDS`: the squeeze-and-excitation blocks that stay dense; empty for the dense file.
        size: size in bytes.
        of_dense: size divided by the size of the dense file of the same weights.
        sparse: number of convolutions with a sparse kernel.
        convolutions: number of convolutions without depthwise ones.
    """

    model: str
    ratio: float
    squeeze: str
    size: int
    of_dense: float
    sparse: int
    convolutions: int


def measure(model: str, ratio: float, squeeze: str, output: Path) -> list[Row]:
    """Prunes, exports, optimizes and verifies one network.

    Returns:
        The row of the dense file, followed by the row of the sparse file unless the ratio is 0.

    Raises:
        PipelineError: the verification of the files failed.
    """
    paddle.seed(0)
    with paddle.utils.unique_name.guard():  # file sizes depend on the length of names
        network = build_network(config.load(read_recipe(RECIPES / FILES[model]).content, FILES[model]))
    spec = [InputSpec([1, 3, SIZE, SIZE], "float32"), InputSpec([1, 2], "float32"), InputSpec([1, 1], "int64")]
    skip = network.prediction_layers() + (network.stage_end_squeezes() if squeeze == PUBLISHED_KIND else [])
    plan = make_plan(network, spec, skip=skip, prune_squeeze_excite=squeeze != "all")
    if ratio:
        GMPPruner(
            network, ratio=ratio, local_sparsity=True, plan=plan, configs={"initial_ratio": ratio, "pruning_steps": 1}
        ).step()
    else:
        plan = PrunePlan(tuple(replace(layer, pruned=False) for layer in plan.layers))
    context = HookContext(network, output, plan, measure_sparsity(network, plan), ratio)
    with network.export_mode(SIZE, SIZE, nms=False) as (detector, specs):
        for hook in (Export(specs, detector), OptimizeLite(), verify, fail_on_mismatch):
            hook(context)
    convolutions = sum(isinstance(layer, nn.Conv2D) and layer._groups == 1 for layer in network.sublayers())
    dense = context.artefacts["nb_dense"].stat().st_size
    rows = [Row(model, 0.0, "", dense, 1.0, 0, convolutions)]
    if ratio:
        nb = context.artefacts["nb_sparse"]
        rows.append(
            Row(
                model,
                ratio,
                squeeze,
                nb.stat().st_size,
                nb.stat().st_size / dense,
                count_convolutions(nb).sparse,
                convolutions,
            )
        )
    return rows


def published_table() -> str:
    """Renders what was published; speed-up is (dense - sparse) / sparse."""
    headers = (
        "PicoDet 320",
        "sparsity",
        "mAP",
        "MB",
        "of dense",
        "ms, 1 thread",
        "speed-up",
        "ms, 4 threads",
        "speed-up",
    )
    shown = []
    for (model, ratio), (accuracy, megabytes, one, four) in PUBLISHED.items():
        _, dense_megabytes, *dense = PUBLISHED[model, 0.0]
        times = [
            cell for ms, before in zip((one, four), dense) for cell in (ms, signed(before / ms - 1 if ratio else None))
        ]
        shown.append(
            (f"{model} (ESNet)", f"{ratio:.0%}", accuracy, megabytes, f"{megabytes / dense_megabytes:.2f}", *times)
        )
    return render_table(headers, shown, "lrrrrrrrr")


def size_table(rows: list[Row]) -> str:
    """Renders the sizes of our files; MB are 10^6 bytes as in the published table."""
    headers = ("PicoDet 320", "sparsity", "SE left dense", "our .nb MB", "of dense", "sparse convolutions")
    shown = [
        (
            f"{row.model} (ESNet)",
            f"{row.ratio:.0%}",
            row.squeeze or "-",
            f"{row.size / 1e6:.2f}",
            f"{row.of_dense:.3f}",
            f"{row.sparse} of {row.convolutions}",
        )
        for row in rows
    ]
    return render_table(headers, shown, "lrlrrr")


def measure_latency(model: str, ratios: tuple[float, ...]) -> dict[str, Any]:
    """Measures the latency on this machine; see `measure_plan`."""
    recipe = read_recipe(RECIPES / FILES[model])
    request = PlanRequest(ratios, BLOCKS, log=lambda line: print(line, file=sys.stderr))
    with paddle.utils.unique_name.guard():
        return measure_plan(recipe, request)


def latency_table(measured: dict[str, dict[str, Any]]) -> str:
    """Renders the latency of each network on this machine; a star marks a disturbed measurement."""
    shown = [
        (
            f"{model} (ESNet)",
            f"{row['ratio']:.0%}",
            "x".join(map(str, row["block"])) if row["kind"] == "sparse" else "-",
            f"{row['mb']:.2f}",
            f"{row['ms']:.2f}{'*' if row['disturbed'] else ''}",
            signed(row["speedup"]),
        )
        for model, result in measured.items()
        for row in result["rows"]
    ]
    return render_table(
        ("PicoDet 320", "sparsity", "block", ".mnn MB", "our ms, 1 thread", "speed-up"), shown, "lrrrrr"
    )


def shortfalls(rows: list[Row]) -> list[str]:
    """Returns a line for each requirement that is missed."""
    checked = [row for row in rows if row.ratio and row.squeeze == "none"]
    lines = [
        f"{row.ratio:.0%}: {row.of_dense:.3f} of the dense size, at most {MOST_OF_DENSE[row.ratio]} is asked"
        for row in checked
        if row.of_dense > MOST_OF_DENSE[row.ratio]
    ]
    lines += [
        f"{row.ratio:.0%}: {row.sparse} sparse convolutions, at least {LEAST_SPARSE} are asked"
        for row in checked
        if row.sparse < LEAST_SPARSE
    ]
    missing = MOST_OF_DENSE.keys() - {row.ratio for row in checked}
    return lines + [f"{ratio:.0%}: not measured" for ratio in sorted(missing)]


def main() -> int:
    """Measures, prints the table and checks the requirements."""
    output = Path("output") / "published_table"
    sparse = [(ratio, squeeze) for ratio in MOST_OF_DENSE for squeeze in KINDS]
    measured = [
        measure("m", ratio, squeeze, output / f"m_{ratio:.0%}_{index}") for index, (ratio, squeeze) in enumerate(sparse)
    ]
    rows = [measured[0][0], *(row for _, row in measured), *measure("s", 0.0, "all", output / "s_dense")]
    latency = {"m": measure_latency("m", tuple(MOST_OF_DENSE)), "s": measure_latency("s", ())}
    runtime = latency["m"]["rows"][0]
    print(
        f"\nPublished: mAP on COCO, MB of the .nb, ms on a Snapdragon 835.\n\n{published_table()}\n\n"
        f"Size of our .nb: untrained weights, Paddle {paddle.__version__}, boxes without NMS in the graph; "
        f"all convolutions but depthwise ones. MB are 10^6 bytes.\n\n{size_table(rows)}\n\n"
        f"Latency here: {runtime['runtime']} {runtime['version']}, squeeze-and-excitation left dense; "
        f"{describe_machine(latency['m']['machine'])}\n\n{latency_table(latency)}\n"
    )
    failed = shortfalls(rows)
    for line in failed:
        print(f"falls short: {line}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
