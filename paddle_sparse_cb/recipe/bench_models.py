"""Makes the models of a recipe that are measured: dense and sparse, in the format of each runtime."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from ..deploy.bench.engines import ENGINES, MNN, Engine, missing_engines
from ..deploy.bench.layers import LayerModel
from ..deploy.bench.run import Candidate
from ..deploy.export import export
from ..deploy.mnn.constraints import BLOCKS
from ..deploy.mnn.converter import convert
from ..deploy.onnx import export_onnx
from ..detection.network import DetectionNetwork
from ..detection.weights import load_matching, read_weights
from ..errors import InputError
from ..pruning.paddleslim_masks import apply_paddleslim_masks
from ..pruning.plan import PrunePlan
from ..pruning.pruner import GMPPruner
from ..pruning.statistics import measure_sparsity
from ..utils.layers import calibrate_batch_norms
from .schema import Recipe

# Notes for the table.
UNTRAINED = "untrained weights, pruned at once by magnitude: latency and size depend on shapes and zeros only"
AT_ONCE = "other weights, pruned at once and not trained, for the latency alone"
MNN_BLOCK = (4, 1)  # output channels and input channels: MNN's fastest kernel


@dataclass(frozen=True)
class Weights:
    """Weights of a recipe's network that are measured.

    Attributes:
        name: name of the folder for their files.
        load: sets the network's weights.
        block: rows and columns of the blocks of zeros.
        is_trained: whether their mAP means something.
        note: what a reader must know about them.
    """

    name: str
    load: Callable[[], None]
    block: tuple[int, int] = (1, 1)
    is_trained: bool = False
    note: str = ""


@dataclass
class BenchModels:
    """What is measured of a recipe.

    Attributes:
        candidates: the models, each with its runtime.
        layer_models: the MNN models whose layers can be timed, the dense one first.
        dense: the exported dense model without a suffix.
        pruned: structured names of the pruned weights.
        notes: what was left out, and why.
    """

    candidates: list[Candidate] = field(default_factory=list)
    layer_models: list[LayerModel] = field(default_factory=list)
    dense: Path = Path()
    pruned: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)


class ModelMaker:
    """Exports and converts weights of one network, without NMS, so that all runtimes compute the same graph.

    Args:
        recipe: the recipe.
        network: its network.
        plan: its plan.
        folder: where the files are written.
        log: receives a line for each step.
    """

    def __init__(
        self, recipe: Recipe, network: DetectionNetwork, plan: PrunePlan, folder: Path, log: Callable[[str], None]
    ) -> None:
        self._recipe, self._network, self._plan, self._folder, self._log = recipe, network, plan, folder, log
        self._initial = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
        self.made = BenchModels(pruned=tuple(layer.name for layer in plan.pruned), notes=missing_engines())
        self._has_onnx = find_spec("paddle2onnx") is not None
        if not self._has_onnx:
            self.made.notes.append(
                "paddle2onnx is not installed, so that only Paddle Inference was measured: "
                "pip install 'paddle_sparse_cb[mnn]'"
            )

    def initial(self) -> Weights:
        """Untrained weights without zeros."""
        return Weights("dense", self._set_initial, note=UNTRAINED)

    def checkpoint(self, name: str, path: Path, block: tuple[int, int] = (1, 1)) -> Weights:
        """The weights of a checkpoint."""

        def load() -> None:
            arrays, _ = apply_paddleslim_masks(read_weights(str(path)))
            load_matching(self._network, arrays, str(path))

        return Weights(name, load, block, is_trained=True)

    def pruned(self, ratio: float, block: tuple[int, int], note: str = UNTRAINED) -> Weights:
        """Untrained weights, pruned at once by magnitude."""

        def load() -> None:
            self._set_initial()
            GMPPruner(
                self._network,
                ratio=ratio,
                scope=self._recipe.pruning_config().scope,
                sparse_block=block,
                configs={"initial_ratio": ratio, "pruning_steps": 1},
                plan=self._plan_for(ratio, block),
            ).step()
            self._calibrate()

        return Weights(f"sparse_{ratio}_{block[0]}x{block[1]}", load, block, note=note)

    def _plan_for(self, ratio: float, block: tuple[int, int]) -> PrunePlan:
        """Returns the plan; the recipe's ratios and blocks of single layers go with its own ratio and block only."""
        own = self._recipe.pruning_config()
        changes: dict[str, Any] = {} if ratio == own.ratio else {"ratio": None}
        if block != tuple(own.sparse_block):
            changes.update(block=None, block_note="")
        return PrunePlan(tuple(replace(layer, **changes) for layer in self._plan.layers))

    def add_dense(self, weights: Weights) -> None:
        """Adds a candidate with dense kernels for each runtime."""
        prefix, ratio = self.export(weights)
        files = {".pdmodel": Path(f"{prefix}.pdmodel")}
        if self._has_onnx:
            files[".onnx"] = export_onnx(prefix, Path(f"{prefix}.onnx"))
            if MNN.version is not None:
                files[".mnn"] = convert(files[".onnx"], Path(f"{prefix}_dense.mnn"), sparse=False)
                self.made.layer_models.insert(0, LayerModel(files[".mnn"], "dense", ratio))
        self.made.dense = prefix
        self.made.candidates += [
            self._candidate(engine, files[engine.suffix], "dense", ratio, weights, prefix)
            for engine in ENGINES
            if engine.version is not None and engine.suffix in files
        ]

    def add_sparse(self, weights: Weights) -> None:
        """Adds a candidate with sparse kernels for each runtime that has them: MNN."""
        if not self._has_onnx or MNN.version is None:
            return
        try:
            prefix, ratio = self.export(weights)
        except InputError as error:  # the block does not divide a layer
            self.made.notes.append(f"blocks of {weights.block[0]}x{weights.block[1]} were left out: {error}")
            return
        onnx = export_onnx(prefix, Path(f"{prefix}.onnx"))
        mnn = convert(onnx, Path(f"{prefix}_sparse.mnn"), sparse=True, block=kernel_block(weights.block[0]))
        self.made.layer_models.append(LayerModel(mnn, "sparse", ratio, weights.block))
        self.made.candidates.append(self._candidate(MNN, mnn, "sparse", ratio, weights, prefix))

    def _candidate(
        self, engine: Engine, path: Path, kind: str, ratio: float, weights: Weights, prefix: Path
    ) -> Candidate:
        reference = Path(f"{prefix}.pdmodel")
        return Candidate(engine, path, kind, ratio, weights.block, reference, weights.is_trained, weights.note)

    def export(self, weights: Weights) -> tuple[Path, float]:
        """Exports weights; returns the path without a suffix and the fraction of zeros in the pruned layers."""
        weights.load()
        self._log(f"exporting {weights.name} ...")
        with self._network.export_mode(*self._recipe.input_size, nms=False) as (detector, specs):
            prefix = export(detector, self._folder / weights.name / "model", specs)
        return prefix, measure_sparsity(self._network, self._plan).ratio

    def _set_initial(self) -> None:
        self._network.set_state_dict(self._initial)
        self._calibrate()

    def _calibrate(self) -> None:
        """Gives untrained activations the scale of trained ones.

        They would shrink from layer to layer, the more the sparser the layers are, to numbers that CPUs compute
        slowly (denormals).
        """
        height, width = self._recipe.input_size
        image = paddle.to_tensor(np.random.default_rng(0).standard_normal((1, 3, height, width)).astype("float32"))
        calibrate_batch_norms(self._network, image, paddle.ones([1, 2]), paddle.zeros([1, 1], "int64"))


def kernel_block(rows: int) -> int:
    """Returns the most output channels that a kernel of MNN takes together and that are always zero together."""
    return max(block for block in BLOCKS if rows % block == 0)
