"""A network to the `.pdmodel` and `.pdiparams` that Paddle-Lite reads."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paddle
from paddle.jit.dy2static.program_translator import ProgramTranslator

from ..errors import PipelineError
from ..hooks import HookContext
from ..utils.layers import eval_mode
from ..utils.legacy_programs import legacy_program_format
from .lite.constraints import check_input
from .program import patch_for_lite


def export(network: paddle.nn.Layer, prefix: Path, input_spec: Sequence[Any]) -> Path:
    """Exports a network in evaluation mode, with a fixed input shape.

    The shape has to be fixed, the batch to be one: Paddle-Lite bakes height and width into the offsets of a sparse
    convolution's weights, and computes a second image wrongly.

    Args:
        network: any layer; left as it was.
        prefix: the path without an ending; each file is written whole or not at all.
        input_spec: `paddle.static.InputSpec`s, or dicts of them (None for what is not used) for a network that
            takes dicts.

    Returns:
        The prefix.

    Raises:
        InputError: a shape is not fixed, or the batch is not 1.
        PipelineError: Paddle 3 cannot write what Paddle-Lite reads for a function of this network.
    """
    for spec in _flat(input_spec):
        check_input(f"export: input {spec.name!r}", list(spec.shape))
    prefix.parent.mkdir(parents=True, exist_ok=True)
    with eval_mode(network), tempfile.TemporaryDirectory(prefix=".", dir=prefix.parent) as scratch:
        _save(network, Path(scratch, prefix.name), list(input_spec))
        patch_for_lite(Path(scratch, f"{prefix.name}.pdmodel"))
        for file in sorted(Path(scratch).iterdir()):
            os.replace(file, prefix.parent / file.name)
    return prefix


def _save(network: paddle.nn.Layer, prefix: Path, input_spec: list[Any]) -> None:
    _forget_failed()
    try:
        # Names that do not depend on what the process did before: the same weights are the same files.
        with legacy_program_format(), paddle.utils.unique_name.guard():
            paddle.jit.save(network, str(prefix), input_spec=input_spec)
    except (TypeError, ValueError) as error:
        # What `legacy_program_format` has no operator for: Paddle 3's own complaint, at the end of a translated traceback.
        unknown = re.search(r"(\w+)\(\): argument .* must be Value, but got", str(error))
        if unknown is None:
            raise
        raise PipelineError(f"export: Paddle {paddle.__version__} cannot put {unknown[1]}() into a program for "
                        "Paddle-Lite; load the checkpoint with paddlepaddle 2.6.2 and export there") from None


def _forget_failed() -> None:
    """Drops what Paddle has noted of programs that it did not finish.

    It notes a program's parameters under the program's `id`, and strikes the note off at the end, which is not reached
    where an export fails. Later another program gets the `id`, and with it parameters of a network that is gone:
    `KeyError: 'conv2d_50.w_0'`.
    """
    ProgramTranslator.get_instance()._params_recorder.params_dict.clear()


def _flat(input_spec: Sequence[Any]) -> list[Any]:
    specs = [spec for item in input_spec for spec in (item.values() if isinstance(item, dict) else [item])]
    return [spec for spec in specs if spec is not None]


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


