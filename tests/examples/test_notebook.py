"""The notebook of `examples` runs from top to bottom, and shows what it says."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
(NOTEBOOK,) = EXAMPLES.glob("*.ipynb")


@pytest.mark.slow
def test_the_notebook_runs_and_shows_tables_and_a_chart(tmp_path):
    pytest.importorskip("nbmake", reason="the extra `notebook` is not installed")
    for path in (NOTEBOOK, EXAMPLES / "fashion_mnist.py"):
        shutil.copy(path, tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")  # not those of this project
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--nbmake", "--nbmake-timeout=300", "--overwrite", NOTEBOOK.name],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
    cells = json.loads((tmp_path / NOTEBOOK.name).read_text())["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    printed = "".join(line for output in outputs for line in output.get("text", []))
    assert printed.count("features.0.weight") == 2  # the plan and the report, as text
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert (tmp_path / "output" / "notebook" / "inference" / "model.pdiparams").is_file()


def test_the_notebook_has_been_committed_without_paths_of_a_machine():
    for cell in json.loads(NOTEBOOK.read_text())["cells"]:
        for output in cell.get("outputs", []):
            assert output.get("name") != "stderr"
            assert "site-packages" not in json.dumps(output)
