"""Reads and writes `report.json`.

Its fields:

- `recipe`, `seed`, `paddle` (version) and `digest` (of the recipe) identify the run.
- `checkpoint` names the exported checkpoint: `best_model`, `final`, or null if nothing was exported.
- `rows` has one object for the `dense` model, one for the `sparse` model, or both: `name`, `model`, `input_size`
  (height and width in pixels), `target_sparsity`, `sparsity`, `map` and `ap50` (fractions), `nb_bytes`, `sparse_convs`
  and `convs` (of the optimized model). A figure that was not measured is null.
- `dense_note` says why a sparse run has no dense row; empty otherwise.
- `layers` has the number of zeros of each weight.
- `checks` has the results of the verification of each file, each with a `summary` in words.
- `bench` has the latencies, `machine`, `rows` and `notes` (see `deploy.bench`), or is null or absent if they were not
  measured.
- `evaluations` has the best evaluation at each level of sparsity: `epoch`, `sparsity`, `mAP` and `AP50`.

Recipes add these, which are optional:

- `data` has for `train` and `eval` the `folder`, the numbers of `images` and `objects`, and the `median_size` of the
  images (width and height in pixels).
- `classes` has for each class its `name`, the numbers `train_objects` and `eval_objects`, and `dense_ap` and
  `sparse_ap` (COCO's AP over IoU 0.5:0.95, a fraction; null if not measured).
- `curves` has the points `[optimizer step, value]` of some of TensorBoard's curves, by tag.
- `pictures` has for each image its `split` (`train`, `example`, or `eval` where dense and sparse differ most), the name
  of its file (`image`), and `panels`, each with a `title` and a `file` below the output folder.
- `sizes` has `file` (below the output folder) and `bytes` of each file that was made.
- `versions` and `commands` say what made the result.
- `bench` has one object for each measurement of `paddle-sparse bench`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..utils.files import valid_text, write_text
from .html import report_html
from .markdown import report_markdown
from .table import report_table


def read_report(output: Path) -> dict[str, Any]:
    """Reads `report.json` of an output folder.

    Raises:
        InputError: the file is missing or not a valid report.
    """
    path = output / "report.json"
    if not path.is_file():
        raise InputError(f"{path}: no report; train the recipe first")
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        report["digest"], report_table(report)  # raises if a field that callers use is missing or malformed
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not a valid report: {type(error).__name__} {error}") from None
    return report


def write_report(report: dict[str, Any], output: Path) -> None:
    """Writes `report.json`, `report.md` and `report.html` to an output folder.

    Raises:
        ValueError: a figure is NaN or infinite, which JSON cannot represent.
    """
    write_text(output / "report.json", json.dumps(report, indent=1, allow_nan=False) + "\n")
    write_text(output / "report.md", valid_text(report_markdown(report)))
    write_text(output / "report.html", report_html(report, output))
