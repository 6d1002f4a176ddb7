"""mAP of a recipe's models in the runtimes that are measured."""

from __future__ import annotations

from dataclasses import dataclass

import paddle

from ..deploy.bench.engines import Session
from ..detection.build import build_metric
from ..errors import InputError
from .build import Run


@dataclass
class DetectorEvaluation:
    """Evaluates a model that was exported without NMS on the evaluation images of a recipe.

    Attributes:
        run: the run, for its images and its NMS.
    """

    run: Run

    def __call__(self, session: Session) -> float:
        """Returns the mAP of a loaded model.

        Raises:
            InputError: the recipe evaluates images of another size than the exported network takes.
        """
        metric = build_metric(self.run.eval_loader)
        [(name, shape)] = session.inputs.items()
        for images, scales, ids in self.run.eval_loader:
            if tuple(images.shape[1:]) != tuple(shape[1:]):
                raise InputError(
                    f"{self.run.recipe.files}: EvalReader makes images of {list(images.shape[1:])}, but the exported "
                    f"network takes {list(shape[1:])}: set TestReader.inputs_def.image_shape to the size of EvalReader"
                )
            for number in range(len(images)):
                outputs = session.run({name: images[number : number + 1].numpy()})
                # Paddle numbers the outputs: boxes, then scores.
                boxes, scores = (paddle.to_tensor(outputs[output]) for output in sorted(outputs))
                found = self.run.network.select_boxes(boxes, scores, scales[number : number + 1])
                metric.update(found.numpy(), ids[number : number + 1].numpy())
        return float(metric.accumulate()[0])
