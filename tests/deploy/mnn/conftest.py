"""A network with every kind of layer, converted to MNN once for all tests here."""

import shutil
from dataclasses import replace

import paddle
import pytest
from helpers import Pointwise
from paddle.static import InputSpec

from paddle_sparse_cb import GMPPruner, HookContext, make_plan, measure_sparsity
from paddle_sparse_cb.deploy import ConvertMNN, Export

SPEC = [InputSpec([1, 1, 8, 8], "float32", "x")]


def prune(network, folder, ratio=0.75, block=1):
    """Prunes a network at once, in blocks of output channels, and returns the context of the hooks."""
    plan = make_plan(network, SPEC)
    configs = {"initial_ratio": ratio, "pruning_steps": 1}
    GMPPruner(network, ratio=ratio, local_sparsity=True, plan=plan, sparse_block=(block, 1), configs=configs).step()
    return HookContext(network, folder, plan, measure_sparsity(network, plan), ratio)


@pytest.fixture(scope="session")
def session_converted(tmp_path_factory):
    paddle.seed(7)
    context = prune(Pointwise(), tmp_path_factory.mktemp("mnn"))
    for hook in (Export(SPEC), ConvertMNN()):
        hook(context)
    return context


@pytest.fixture
def converted(session_converted, tmp_path):
    """The context of `Pointwise` after `ConvertMNN`, with files of its own."""
    shutil.copytree(session_converted.output, tmp_path, dirs_exist_ok=True)
    artefacts = {
        name: tmp_path / path.relative_to(session_converted.output)
        for name, path in session_converted.artefacts.items()
    }
    return replace(session_converted, output=tmp_path, artefacts=artefacts, checks={}, samples=())
