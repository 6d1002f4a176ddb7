"""The hook that takes images of a recipe to verify its files with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import paddle

from ..hooks import HookContext
from .build import Run

_IMAGES = 4  # of the evaluation


@dataclass
class AddSamples:
    """Takes the first images of the evaluation as the inputs that files are verified with."""

    run: Run

    def __call__(self, context: HookContext) -> None:
        """Sets `samples`; the images have the size of the exported network, and keep their scale factors."""
        loader, size = self.run.eval_loader, self.run.recipe.input_size
        samples = []
        for index in range(min(_IMAGES, len(loader.dataset))):
            image, scale_factor, *_ = loader.collate_fn([loader.dataset[index]])  # images may differ in size
            resized = paddle.nn.functional.interpolate(paddle.to_tensor(image), size, mode="bilinear")
            samples.append({"image": resized.numpy()[0], "scale_factor": np.asarray(scale_factor)[0]})
        context.samples = samples
