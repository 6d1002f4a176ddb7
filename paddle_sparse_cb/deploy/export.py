"""Exports a network to the `.pdmodel` and `.pdiparams` files that Paddle-Lite reads."""

from __future__ import annotations

import functools
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paddle

from ..errors import PipelineError
from ..hooks import HookContext
from ..utils.files import scratch_folder
from ..utils.layers import eval_mode, keep_forwards
from ..utils.legacy_programs import legacy_program_format
from ..utils.messages import logger
from .compat import discard_failed_exports
from .lite.constraints import check_input_shape
from .lite.patches import patch_for_lite
from .manifest import exported_files, record
from .variable_names import numbered_from_zero, sort_structured_names


def export(network: paddle.nn.Layer, prefix: Path, input_spec: Sequence[Any]) -> Path:
    """Exports a network in evaluation mode with fixed input shapes and batch size 1.

    Paddle-Lite stores height and width in the offsets of sparse weights, and computes the second image of a batch
    wrongly. The program is rewritten for Paddle-Lite (see `patch_for_lite`) and computes the same as the network.

    Args:
        network: any layer. The training mode and the `forward` of each of its sublayers are restored.
        prefix: the path to write to, without an extension. Each file appears only when it is complete.
        input_spec: one `paddle.static.InputSpec` per input; a dict of them for an input that is a dict, with None for a
            key that is not used.

    Returns:
        `prefix`.

    Raises:
        InputError: a dimension of an input is dynamic, the batch size is not 1, or the network has an adaptive pooling
            that Paddle-Lite computes wrongly.
        PipelineError: Paddle 3 cannot export a function of this network for Paddle-Lite.

    Examples:
        >>> network = paddle.nn.Conv2D(3, 8, 1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     prefix = export(network, Path(folder, "model"), [paddle.static.InputSpec([1, 3, 32, 32])])
        ...     sorted(path.name for path in prefix.parent.iterdir())
        ['model.pdiparams', 'model.pdiparams.info', 'model.pdmodel']
    """
    for spec in _flatten(input_spec):
        check_input_shape(f"export: input {spec.name!r}", list(spec.shape))
    prefix.parent.mkdir(parents=True, exist_ok=True)
    with eval_mode(network), keep_forwards(network), scratch_folder(prefix.parent, prefix.name) as scratch:
        _save(network, scratch / prefix.name, list(input_spec))
        patch_for_lite(scratch / f"{prefix.name}.pdmodel")
        sort_structured_names(scratch / f"{prefix.name}.pdiparams.info")
        for file in sorted(scratch.iterdir()):
            os.replace(file, prefix.parent / file.name)
    return prefix


def _save(network: paddle.nn.Layer, prefix: Path, input_spec: list[Any]) -> None:
    discard_failed_exports()
    try:
        # Names are independent of earlier work in this process: equal weights give equal files.
        with legacy_program_format(), paddle.utils.unique_name.guard(), numbered_from_zero(network):
            paddle.jit.save(network, str(prefix), input_spec=input_spec)
    except (TypeError, ValueError) as error:
        # Raised at the end of a translated traceback for functions that `legacy_program_format` does not supply.
        unsupported = re.search(r"(\w+)\(\): argument .* must be Value, but got", str(error))
        if unsupported is None:
            raise
        raise PipelineError(
            f"export: Paddle {paddle.__version__} cannot export {unsupported[1]}() for Paddle-Lite; "
            "load the checkpoint with paddlepaddle 2.6.2 and export there"
        ) from None


def _flatten(input_spec: Sequence[Any]) -> list[Any]:
    specs = [spec for item in input_spec for spec in (item.values() if isinstance(item, dict) else [item])]
    return [spec for spec in specs if spec is not None]


def _call(network: paddle.nn.Layer, input_spec: Sequence[Any], inputs: Mapping[str, paddle.Tensor]) -> Any:
    """Calls a network in evaluation mode with the inputs of its exported program, which is in their order."""
    tensors = iter(inputs.values())
    with eval_mode(network):
        return network(
            *(
                {key: None if one is None else next(tensors) for key, one in sorted(item.items())}
                if isinstance(item, dict)
                else next(tensors)
                for item in input_spec
            )
        )


@dataclass
class Export:
    """Post-train hook: exports the network to `inference/model` in the output folder.

    Attributes:
        input_spec: see `export`.
        network: the layer to export instead of the trained network, such as the detector inside a wrapper. It must
            share the trained parameters. `verify` calls it as it is then: a mode that it was exported in must still be
            set, or `HookContext.references` must name a function that sets it.
        name: the folder in the output folder, and the artefact.

    Raises:
        InputError: when called and at train begin, see `export`.
        PipelineError: when called and at train begin, see `export`.
    """

    input_spec: Sequence[Any]
    network: paddle.nn.Layer | None = None
    name: str = "inference"

    def check_network(self, network: paddle.nn.Layer) -> None:
        """Exports the untrained network to a temporary folder, so that what cannot be exported is found now."""
        with tempfile.TemporaryDirectory() as folder:
            export(self.network or network, Path(folder, "model"), self.input_spec)

    def __call__(self, context: HookContext) -> None:
        """Adds the artefact `name`, the path without an extension, its reference, and its files to the manifest."""
        logger.info("exporting the network ...")
        prefix = context.output / self.name / "model"
        network = self.network or context.network
        context.artefacts[self.name] = export(network, prefix, self.input_spec)
        context.references[self.name] = functools.partial(_call, network, self.input_spec)
        sources = [context.artefacts["pdparams"]] if "pdparams" in context.artefacts else []
        record(context.output, sources)
        record(context.output, exported_files(prefix), sources)
