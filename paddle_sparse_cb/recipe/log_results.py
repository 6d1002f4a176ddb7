"""The hook that shows the result of a run in TensorBoard."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..callbacks.tensorboard import SparsityWriter, read_curves
from ..detection.drawing import put_side_by_side
from ..detection.pictures import encode_jpeg
from ..detection.predict import read_image
from ..hooks import HookContext
from ..report.schema import read_report


@dataclass
class LogResults:
    """Post-train hook: adds the report, and the pictures that it shows of validation images, to the curves.

    Attributes:
        log_dir: the folder of the curves.
    """

    log_dir: Path

    def __call__(self, context: HookContext) -> None:
        """Writes an event file beside that of the training, at its last step."""
        report = read_report(context.output)
        step = max((points[-1][0] for points in read_curves(self.log_dir).values()), default=0)
        writer = SparsityWriter(self.log_dir)
        writer.text(step, "report", (context.output / "report.md").read_text(encoding="utf-8"))
        for picture in report.get("pictures", ()):
            if picture["split"] in ("example", "eval"):
                panels = {panel["title"]: read_image(context.output / panel["file"]) for panel in picture["panels"]}
                joined = encode_jpeg(put_side_by_side(list(panels), list(panels.values())))
                writer.image(step, f"validation/{picture['image']}", joined.content, joined.width, joined.height)
        writer.close()
