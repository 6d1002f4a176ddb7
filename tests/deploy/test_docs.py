"""The code of docs/deploy.md runs as it stands, and the files have the sizes in its table."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import PADDLE3

TEXT = (Path(__file__).parents[2] / "docs" / "deploy.md").read_text()
DEPLOY, *OTHERS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
(INT8,) = (block for block in OTHERS if "QuantizeInt8(" in block)
(MNN,) = (block for block in OTHERS if "ConvertMNN(" in block)


@pytest.mark.slow
def test_the_examples_make_verified_files_of_the_sizes_in_the_table(tmp_path):
    kinds = ["dense", "sparse"] if PADDLE3 else ["dense", "sparse", "int8_dense", "int8_sparse"]
    code = DEPLOY + ("" if PADDLE3 else INT8) + MNN  # Paddle 3 cannot quantize
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "nb: ok: 34 of 34 planned layers run sparse; " in done.stdout
    assert "mnn: ok: 34 of 34 planned layers run sparse; " in done.stdout
    output = tmp_path / "output"
    assert {path.name for path in output.glob("inference/*")} == {
        "model.pdmodel",
        "model.pdiparams",
        "model.pdiparams.info",
    }
    assert {path.name for path in output.glob("*.nb")} == {f"model_{kind}.nb" for kind in kinds}
    (row,) = re.findall(r"\| mobilenet_v2 \| 95% +\| 34 of 52 +\|(.*)\|", TEXT)
    sizes = [int(cell.replace(",", "")) for cell in row.split("|")]
    # Padding depends on the positions of the zeros, INT8 rounding to zero on the weights.
    found = [(output / f"model_{kind}.nb").stat().st_size for kind in kinds]
    assert found == pytest.approx(sizes[: len(kinds)], rel=0.01)
