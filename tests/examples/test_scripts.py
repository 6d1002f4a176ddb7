"""The scripts of `examples` run as a user runs them, on fewer images."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name, folder, *arguments):
    command = [sys.executable, EXAMPLES / name, *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def percentages(text, pattern):
    return [float(number) for number in re.search(pattern, text).groups()]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "files", "least"),
    [
        ("lenet_fashion_mnist.py", ["--images", 3000], ["model_dense.mnn", "model_sparse.mnn"], 60),
        (
            "mobilenet_v2.py",
            ["--images", 320, "--ratio", 0.7],
            ["model_dense.mnn", "model_dense.nb", "model_sparse.mnn", "model_sparse.nb"],
            0,  # from scratch, ten images of a class teach nothing
        ),
    ],
)
def test_a_script_trains_prunes_exports_verifies_and_measures(name, options, files, least, tmp_path):
    done = run(name, tmp_path, *options, "-o", "made")
    assert done.returncode == 0, done.stderr
    (dense,) = percentages(done.stdout, r"accuracy after 2 epochs, dense: ([\d.]+)%")
    zeros, sparse = percentages(done.stdout, r"after 2 more, with ([\d.]+)% zeros.*: ([\d.]+)%")
    assert zeros == pytest.approx(70 if "--ratio" in options else 80, abs=0.1)
    assert dense > least
    assert sparse > dense - 10
    assert sorted(path.name for path in (tmp_path / "made").glob("model_*")) == files
    assert (tmp_path / "made" / "inference" / "model.pdmodel").is_file()
    for check in ("pdiparams", "mnn", "manifest", *(["nb"] if "model_sparse.nb" in files else [])):
        assert f"\n{check}: ok: " in done.stdout
    assert re.search(r"model_sparse.mnn +MNN .* sparse ", done.stdout)  # the table of bench
    assert {path.name for path in tmp_path.iterdir()} == {"made"}
