"""Quantizes an exported model to INT8 after training, before Paddle-Lite's optimizer."""

from __future__ import annotations

import contextlib
import io
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import paddle

from ..errors import InputError, PipelineError
from ..hooks import HookContext
from ..utils.files import scratch_folder
from ..utils.messages import logger
from .lite.constraints import INT8_THRESHOLD, check_int8
from .lite.patches import patch_for_lite
from .manifest import exported_files, record
from .program import read_program


def quantize(prefix: Path, output: Path, samples: Sequence[Mapping[str, np.ndarray]]) -> Path:
    """Quantizes an exported model with PaddleSlim's `quant_post_static` (algorithm `avg`).

    Weights are scaled per output channel, activations by the mean over the samples of their largest magnitude. Scales
    are symmetric, so zero weights stay zero.

    Args:
        prefix: the exported model's path without `.pdmodel`.
        output: the path of the quantized model, without an extension.
        samples: a few dozen typical inputs, each a dict from input name to array without the batch dimension, such as
            `{"image": array}` with an array of shape [3, height, width].

    Returns:
        `output`.

    Raises:
        InputError: there is no sample, or a sample's names or shapes are not those of the model's inputs.
        PipelineError: this is Paddle 3, which cannot quantize a model for Paddle-Lite.
    """
    if hasattr(paddle.pir_utils, "OldIrGuard"):
        raise PipelineError(
            f"INT8: Paddle {paddle.__version__} cannot quantize a model for Paddle-Lite; run this step "
            "with paddlepaddle 2.6.2"
        )
    inputs = {name: shape[1:] for name, shape in read_program(prefix).inputs.items()}
    if not len(samples):
        raise InputError("INT8: no samples to calibrate with")
    for index, sample in enumerate(samples):
        shapes = {name: np.shape(array) for name, array in sample.items()}
        if shapes != inputs:
            raise InputError(
                f"INT8: sample {index} has shapes {shapes}; without the batch dimension the inputs of "
                f"{prefix}.pdmodel are {inputs}"
            )
    output.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(output.parent, output.name) as scratch:
        _quantize(prefix, scratch, samples)
        patch_for_lite(scratch / "model.pdmodel")
        # Quantization does not rename the weights.
        shutil.copy(f"{prefix}.pdiparams.info", scratch / "model.pdiparams.info")
        for extension in (".pdmodel", ".pdiparams", ".pdiparams.info"):
            (scratch / f"model{extension}").replace(f"{output}{extension}")
    return output


class _Samples(paddle.io.Dataset):
    def __init__(self, samples: Sequence[Mapping[str, np.ndarray]]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return dict(self.samples[index])


def _quantize(prefix: Path, folder: Path, samples: Sequence[Mapping[str, np.ndarray]]) -> None:
    from paddleslim.quant import quant_post_static  # here, because PaddleSlim takes a second to import

    paddle.enable_static()
    logging.disable(logging.WARNING)
    try:
        place = paddle.CPUPlace()
        loader = paddle.io.DataLoader(_Samples(samples), batch_size=1, places=[place])
        scope = paddle.static.Scope()
        # PaddleSlim's progress bars go to stderr.
        with paddle.static.scope_guard(scope), contextlib.redirect_stderr(io.StringIO()):
            quant_post_static(
                paddle.static.Executor(place),
                str(prefix.parent),
                str(folder),
                data_loader=loader,
                model_filename=f"{prefix.name}.pdmodel",
                params_filename=f"{prefix.name}.pdiparams",
                batch_size=1,
                batch_nums=len(samples),
                algo="avg",
                scope=scope,
            )
    finally:
        logging.disable(logging.NOTSET)
        paddle.disable_static()


@dataclass
class QuantizeInt8:
    """Post-train hook: quantizes the exported model to `inference_int8/model`, between `Export` and `OptimizeLite`.

    Prints a warning if the network has so few zeros that the sparse INT8 file will be larger than the dense one.

    Attributes:
        samples: typical inputs (see `quantize`).

    Raises:
        InputError: when called, if the network is pruned and has an activation that Paddle-Lite computes wrongly in
            sparse INT8 models (hard swish, leaky ReLU), or if the samples do not match (see `quantize`).
        PipelineError: when called, see `quantize`.
    """

    samples: Sequence[Mapping[str, np.ndarray]]

    def __call__(self, context: HookContext) -> None:
        """Adds the artefact `inference_int8`, the path without an extension, and its files to the manifest."""
        exported = context.artefacts["inference"]
        if context.plan.pruned:
            check_int8(f"{exported}.pdmodel", read_program(exported))
            if context.sparsity.ratio < INT8_THRESHOLD:
                logger.warning(
                    f"{context.sparsity.ratio:.0%} zeros: below about {INT8_THRESHOLD:.0%} a sparse INT8 "
                    "file is larger than the dense INT8 file"
                )
        logger.info(f"quantizing with {len(self.samples)} samples ...")
        prefix = quantize(exported, context.output / "inference_int8" / "model", self.samples)
        context.artefacts["inference_int8"] = prefix
        record(context.output, exported_files(prefix), exported_files(exported))
