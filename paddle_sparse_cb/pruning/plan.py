"""`PrunePlan`: which weights are pruned, why the others are not, and the cost of each layer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import InputError
from ..utils.tables import render_table


@dataclass(frozen=True)
class PlannedLayer:
    """One weight of a network and whether it is pruned.

    Attributes:
        name: structured name of the weight, such as `backbone.conv1.weight`.
        shape: shape of the weight.
        pruned: whether the weight is pruned.
        reason: why the weight is not pruned; empty if it is.
        lite_dense_reason: why Paddle-Lite would run the layer dense however many zeros it has; empty if no reason is
            known.
        mnn_dense_reason: the same for MNN.
        output_sizes: the distinct spatial sizes of the layer's outputs in pixels, such as `((40, 40),)`, or `((),)`
            for a linear layer applied to vectors; empty if no forward pass was run.
        macs: multiply-accumulates for one image; None if no forward pass was run.
        ratio: the layer's own target ratio; None for the ratio of the training.
        block: rows and columns that are pruned as one; None for the `sparse_block` of the training.
        block_note: why single weights are pruned although the training has a larger `sparse_block`; empty otherwise.
    """

    name: str
    shape: tuple[int, ...]
    pruned: bool
    reason: str = ""
    lite_dense_reason: str = ""
    mnn_dense_reason: str = ""
    output_sizes: tuple[tuple[int, ...], ...] = ()
    macs: int | None = None
    ratio: float | None = None
    block: tuple[int, int] | None = None
    block_note: str = ""


@dataclass(frozen=True)
class PrunePlan:
    """Which weights of a network are pruned; `str(plan)` is a table, with ratios and blocks where layers differ.

    Attributes:
        layers: every weight of the network, in the network's order.
    """

    layers: tuple[PlannedLayer, ...]

    @property
    def pruned(self) -> tuple[PlannedLayer, ...]:
        """The weights to prune, in the network's order."""
        return tuple(layer for layer in self.layers if layer.pruned)

    def require_layers(self) -> PrunePlan:
        """Returns the plan itself.

        Raises:
            InputError: no weight is pruned; the message lists the most common reasons.
        """
        if self.pruned:
            return self
        reasons = Counter(layer.reason for layer in self.layers)
        listed = ", ".join(f"{count} x {reason}" for reason, count in reasons.most_common(4))
        raise InputError(
            f"no layer left to prune: {listed or 'the network has no weights'}; prune_params_type=None "
            "prunes all convolutions and linear layers, skip lists the weights to leave dense"
        )

    def __str__(self) -> str:
        columns: dict[str, Callable[[PlannedLayer], str]] = {
            "weight": lambda layer: layer.name,
            "shape": lambda layer: "x".join(map(str, layer.shape)),
            "output size": _output_sizes,
            "M MACs": lambda layer: _millions(layer.macs),
        }
        if any(layer.ratio is not None for layer in self.pruned):
            columns["ratio"] = lambda layer: "" if layer.ratio is None else f"{layer.ratio:.2%}"
        if any(layer.block not in (None, (1, 1)) for layer in self.pruned):
            columns["block"] = lambda layer: "x".join(map(str, layer.block or ()))
        columns["status"] = _status
        rows = [[cell(layer) for cell in columns.values()] for layer in self.layers]
        table = render_table(list(columns), rows, f"l{'r' * (len(columns) - 2)}l")
        return f"{table}\n{len(self.pruned)} of {len(self.layers)} weights are pruned{self._sparse_share()}"

    def _sparse_share(self) -> str:
        total = sum(layer.macs or 0 for layer in self.layers)
        if not total:
            return ""
        sparse = sum(layer.macs or 0 for layer in self.pruned)
        return f": {sparse / total:.1%} of {_millions(total)} million multiply-accumulates become sparse"


def _status(layer: PlannedLayer) -> str:
    if not layer.pruned:
        return layer.reason
    return f"pruned; {layer.block_note}" if layer.block_note else "pruned"


def _output_sizes(layer: PlannedLayer) -> str:
    return ", ".join("x".join(map(str, size)) or "-" for size in layer.output_sizes)


def _millions(macs: int | None) -> str:
    return "" if macs is None else f"{macs / 1e6:.2f}"
