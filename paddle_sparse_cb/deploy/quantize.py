"""INT8 by post-training quantisation, before Paddle-Lite's optimizer."""

from __future__ import annotations

import contextlib
import io
import logging
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import paddle

from ..errors import InputError, PipelineError
from ..hooks import HookContext
from .lite.constraints import INT8_THRESHOLD, check_int8
from .program import patch_for_lite, read_program


def quantize(prefix: Path, output: Path, samples: Sequence[Mapping[str, np.ndarray]]) -> Path:
    """Quantises an exported model with PaddleSlim: weights per channel, activations by their mean largest magnitude.

    A weight that was zero stays zero: the scales are symmetric.

    Args:
        prefix: the exported model's path without `.pdmodel`.
        output: the path of the quantised one, without an ending.
        samples: what the network sees, a few dozen of them: for each the inputs by name, without the batch's dimension
            (an image is [3, height, width]).

    Returns:
        `output`.

    Raises:
        InputError: there is no sample, or one does not have the model's inputs.
        PipelineError: Paddle 3, which has no quantisation for Paddle-Lite.
    """
    if hasattr(paddle.pir_utils, "OldIrGuard"):
        raise PipelineError(f"INT8: Paddle {paddle.__version__} quantises no model for Paddle-Lite; use paddlepaddle 2.6.2 "
                        "for this step")
    inputs = read_program(prefix).inputs
    if not len(samples):
        raise InputError("INT8: no samples to measure the activations with")
    for sample in samples:
        shapes = {name: np.shape(array) for name, array in sample.items()}
        if shapes != {name: shape[1:] for name, shape in inputs.items()}:
            raise InputError(f"INT8: a sample has {shapes}; {prefix}.pdmodel takes, without the batch, "
                             f"{ {name: shape[1:] for name, shape in inputs.items()} }")
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", dir=output.parent) as scratch:
        _quantize(prefix, Path(scratch), samples)
        patch_for_lite(Path(scratch, "model.pdmodel"))
        shutil.copy(f"{prefix}.pdiparams.info", Path(scratch, "model.pdiparams.info"))  # the names are the same
        for ending in (".pdmodel", ".pdiparams", ".pdiparams.info"):
            Path(scratch, f"model{ending}").replace(f"{output}{ending}")
    return output


class _Samples(paddle.io.Dataset):
    def __init__(self, samples: Sequence[Mapping[str, np.ndarray]]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return dict(self.samples[index])


def _quantize(prefix: Path, folder: Path, samples: Sequence[Mapping[str, np.ndarray]]) -> None:
    from paddleslim.quant import quant_post_static  # here: it costs a second

    paddle.enable_static()
    logging.disable(logging.WARNING)
    try:
        place = paddle.CPUPlace()
        loader = paddle.io.DataLoader(_Samples(samples), batch_size=1, places=[place])
        scope = paddle.static.Scope()
        with paddle.static.scope_guard(scope), contextlib.redirect_stderr(io.StringIO()):  # its progress bars
            quant_post_static(paddle.static.Executor(place), str(prefix.parent), str(folder), data_loader=loader,
                              model_filename=f"{prefix.name}.pdmodel", params_filename=f"{prefix.name}.pdiparams",
                              batch_size=1, batch_nums=len(samples), algo="avg", scope=scope)
    finally:
        logging.disable(logging.NOTSET)
        paddle.disable_static()


@dataclass
class QuantizeInt8:
    """Post-train hook, between `Export` and `OptimizeLite`: an INT8 model beside the exported one.

    Refused for a sparse network with hard swish or leaky ReLU, which Paddle-Lite computes wrongly.

    Attributes:
        samples: see `quantize`.
    """

    samples: Sequence[Mapping[str, np.ndarray]]

    def __call__(self, context: HookContext) -> None:
        """Adds the artefact `inference_int8`, a prefix."""
        exported = context.artefacts["inference"]
        if context.plan.pruned:
            check_int8(f"{exported}.pdmodel", read_program(exported))
            if context.sparsity.ratio < INT8_THRESHOLD:
                print(f"warning: {context.sparsity.ratio:.0%} zeros: below some {INT8_THRESHOLD:.0%} a sparse INT8 "
                      "file is larger than the dense INT8 one", flush=True)
        print(f"quantising with {len(self.samples)} samples ...", flush=True)
        context.artefacts["inference_int8"] = quantize(exported, context.output / "inference_int8" / "model",
                                                       self.samples)
