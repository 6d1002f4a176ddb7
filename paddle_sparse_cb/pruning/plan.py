"""`PrunePlan`: what is pruned, what is not and why, and what each layer costs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from ..errors import InputError
from ..utils.tables import render_table


@dataclass(frozen=True)
class PlannedLayer:
    """One weight of a network.

    Attributes:
        name: the structured name.
        shape: of the weight.
        pruned: whether it is to be pruned.
        reason: if not, why.
        lite_dense_reason: why Paddle-Lite would keep the layer dense whatever its zeros; empty where nothing is known
            against it.
        maps: the sizes of the layer's output maps in pixels, each once, such as `((40, 40),)`; `((),)` of a linear
            layer on vectors; nothing where no forward has shown them.
        macs: multiply-accumulates for one image; None where no forward has shown them.
    """

    name: str
    shape: tuple[int, ...]
    pruned: bool
    reason: str = ""
    lite_dense_reason: str = ""
    maps: tuple[tuple[int, ...], ...] = ()
    macs: int | None = None


@dataclass(frozen=True)
class PrunePlan:
    """What is pruned and what is not, for every weight of a network; its `str()` is the table."""

    layers: tuple[PlannedLayer, ...]

    @property
    def pruned(self) -> tuple[PlannedLayer, ...]:
        """The layers to prune, in the network's order."""
        return tuple(layer for layer in self.layers if layer.pruned)

    def require_layers(self) -> PrunePlan:
        """Returns itself, or raises InputError with the commonest reasons when nothing is left to prune."""
        if self.pruned:
            return self
        reasons = Counter(layer.reason for layer in self.layers)
        listed = ", ".join(f"{count} x {reason}" for reason, count in reasons.most_common(4)) or "it has no weights"
        raise InputError(f"no layer left to prune: {listed}; prune_params_type=None takes all convolutions and linear "
                         "layers, skip names those to leave out")

    def __str__(self) -> str:
        rows = [(layer.name, "x".join(map(str, layer.shape)), _maps(layer), _millions(layer.macs),
                 "pruned" if layer.pruned else layer.reason) for layer in self.layers]
        table = render_table(("weight", "shape", "map", "M MACs", ""), rows, "lrrrl")
        return f"{table}\n{len(self.pruned)} of {len(self.layers)} weights are pruned{self._share()}"

    def _share(self) -> str:
        total = sum(layer.macs or 0 for layer in self.layers)
        if not total:
            return ""
        sparse = sum(layer.macs or 0 for layer in self.pruned)
        return f": {sparse / total:.1%} of {_millions(total)} million multiply-accumulates become sparse"


def _maps(layer: PlannedLayer) -> str:
    return ", ".join("x".join(map(str, size)) or "-" for size in layer.maps)


def _millions(macs: int | None) -> str:
    return "" if macs is None else f"{macs / 1e6:.2f}"
