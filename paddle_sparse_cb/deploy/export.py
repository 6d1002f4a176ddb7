"""A network to the `.pdmodel` and `.pdiparams` that Paddle-Lite reads."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paddle

from ..context import HookContext
from ..errors import InputError, StepError
from ..layers import evaluating


def export(network: paddle.nn.Layer, prefix: Path, input_spec: Sequence[Any]) -> Path:
    """Exports a network in evaluation mode, with a fixed input shape.

    The shape has to be fixed, the batch to be one: Paddle-Lite bakes height and width into the offsets of a sparse
    convolution's weights, and computes a second image wrongly.

    Args:
        network: any layer; left as it was.
        prefix: the path without an ending; each file is written whole or not at all.
        input_spec: `paddle.static.InputSpec`s, or dicts of them for a network that takes dicts.

    Returns:
        The prefix.

    Raises:
        InputError: a shape is not fixed, or the batch is not 1.
        StepError: this version of Paddle does not write what Paddle-Lite reads.
    """
    for spec in _flat(input_spec):
        shape = list(spec.shape)
        if any(size is None or size < 1 for size in shape) or (shape and shape[0] != 1):
            raise InputError(f"export: input {spec.name!r} has shape {shape}; a sparse model needs every size fixed "
                             "and batch 1, or Paddle-Lite computes wrong results")
    prefix.parent.mkdir(parents=True, exist_ok=True)
    with evaluating(network), tempfile.TemporaryDirectory(prefix=".", dir=prefix.parent) as scratch:
        paddle.jit.save(network, str(Path(scratch, prefix.name)), input_spec=list(input_spec))
        if not Path(scratch, f"{prefix.name}.pdmodel").is_file():
            raise StepError(f"export: Paddle {paddle.__version__} wrote no .pdmodel, which Paddle-Lite needs; export "
                            "with paddlepaddle 2.6.2")
        for file in sorted(Path(scratch).iterdir()):
            os.replace(file, prefix.parent / file.name)
    return prefix


def _flat(input_spec: Sequence[Any]) -> list[Any]:
    return [spec for item in input_spec for spec in (item.values() if isinstance(item, dict) else [item])]


@dataclass
class Export:
    """Post-train hook: exports the network to `inference/model`.

    Attributes:
        input_spec: see `export`.
        network: the layer to export where it is not the trained one itself, such as the detector inside a wrapper;
            it shares the trained parameters.
    """

    input_spec: Sequence[Any]
    network: paddle.nn.Layer | None = None

    def __call__(self, context: HookContext) -> None:
        """Adds the artefact `inference`, a prefix."""
        print("exporting the network ...", flush=True)
        prefix = context.output / "inference" / "model"
        context.artefacts["inference"] = export(self.network or context.network, prefix, self.input_spec)


