"""A small network as every runtime reads it. Made once: the converters run in processes of their own."""

import paddle
import pytest
from helpers import CORE_ONLY, Pointwise
from paddle.base.proto import framework_pb2

from paddle_sparse_cb import GMPPruner, make_plan
from paddle_sparse_cb.deploy.export import export
from paddle_sparse_cb.deploy.mnn.converter import convert
from paddle_sparse_cb.deploy.onnx import export_onnx

RUNTIMES = pytest.mark.skipif(CORE_ONLY, reason="the runtimes are installed beside Paddle 2.6 only")
SIZE = 16
RATIO = 0.75


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """A folder with the same pruned network as `.pdmodel`, `.onnx`, and `.mnn` with dense and with sparse kernels."""
    folder = tmp_path_factory.mktemp("models")
    paddle.seed(7)
    network = Pointwise()
    plan = make_plan(network, skip=["squeeze.*"])
    GMPPruner(
        network, ratio=RATIO, local_sparsity=True, plan=plan, configs={"initial_ratio": RATIO, "pruning_steps": 1}
    ).step()
    prefix = export(network, folder / "model", [paddle.static.InputSpec([1, 1, SIZE, SIZE], "float32", "image")])
    onnx = export_onnx(prefix, folder / "model.onnx")
    convert(onnx, folder / "dense.mnn", sparse=False)
    convert(onnx, folder / "sparse.mnn", sparse=True)
    return folder


def edited_program(models, folder, edit):
    """Writes a copy of the exported program that `edit` has changed."""
    program = framework_pb2.ProgramDesc()
    program.ParseFromString((models / "model.pdmodel").read_bytes())
    edit(program)
    path = folder / "edited.pdmodel"
    path.write_bytes(program.SerializeToString())
    path.with_suffix(".pdiparams").write_bytes((models / "model.pdiparams").read_bytes())
    return path
