import subprocess
import sys

import numpy as np
import pytest

from paddle_sparse_cb import InputError
from paddle_sparse_cb.deploy.executor import run_exported
from paddle_sparse_cb.deploy.mnn.runtime import MNNModel


def sample(seed=0):
    return {"x": np.random.RandomState(seed).randn(1, 1, 8, 8).astype("float32")}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_the_outputs_are_paddles_for_input_after_input(converted, kind, threads):
    model = MNNModel(converted.artefacts[f"mnn_{kind}"], threads)
    assert model.inputs == {"x": (1, 1, 8, 8)}
    samples = [sample(0), sample(1), sample(0)]
    found = [next(iter(model.run(one).values())) for one in samples]
    for one, outputs in zip(found, run_exported(converted.artefacts["inference"], samples)):
        np.testing.assert_allclose(one, next(iter(outputs.values())), rtol=0, atol=1e-6)
    assert found[0].tobytes() == found[2].tobytes()  # and is not overwritten by later runs


def test_inputs_in_any_memory_layout_are_read_as_they_are(converted):
    model, one = MNNModel(converted.artefacts["mnn_sparse"]), sample()
    strided = np.asfortranarray(np.repeat(one["x"], 2, axis=3))[..., ::2]
    assert [array.tobytes() for array in model.run({"x": strided}).values()] == [
        array.tobytes() for array in model.run(one).values()
    ]


def test_inputs_of_other_names_shapes_or_types_are_refused(converted):
    model, array = MNNModel(converted.artefacts["mnn_sparse"]), sample()["x"]
    for inputs in ({}, {"y": array}, {"x": array, "y": array}):
        with pytest.raises(InputError, match=r"model_sparse.mnn: the inputs are \['x'\], got \["):
            model.run(inputs)
    for other in (array[..., :4], array.astype("float64"), array.repeat(2, axis=0)):
        with pytest.raises(InputError, match=r"model_sparse.mnn: input 'x' is float32 of shape \(1, 1, 8, 8\), got "):
            model.run({"x": other})


def test_files_that_mnn_cannot_load_and_wrong_numbers_of_threads_are_refused(converted, tmp_path):
    with pytest.raises(InputError, match=r"none.mnn: no such file"):
        MNNModel(tmp_path / "none.mnn")
    (tmp_path / "bad.mnn").write_bytes(b"not a model" * 100)
    with pytest.raises(InputError, match=r"bad.mnn: MNN cannot load it: "):
        MNNModel(tmp_path / "bad.mnn")
    for threads in (0, -1, 1.5):
        with pytest.raises(InputError, match="threads"):
            MNNModel(converted.artefacts["mnn_sparse"], threads)


def test_nothing_is_printed_and_no_package_of_the_extra_is_imported_before_it_is_needed(converted):
    code = """
import sys
from pathlib import Path
import paddle_sparse_cb.deploy.mnn.hook, paddle_sparse_cb.deploy.onnx
from paddle_sparse_cb.deploy.mnn.runtime import MNNModel
imported = {"MNN", "_tools", "_mnncengine", "onnx", "paddle2onnx"} & sys.modules.keys()
assert not imported, imported
MNNModel(Path(sys.argv[1]))
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, converted.artefacts["mnn_sparse"]], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
