"""A network with every kind of layer that a plan distinguishes, converted to MNN once for all tests here."""

import shutil
from dataclasses import replace

import paddle
import pytest
from helpers import Pointwise, pruned_context
from paddle.static import InputSpec

from paddle_sparse_cb.deploy import ConvertMNN, Export

SPEC = [InputSpec([1, 1, 8, 8], "float32", "x")]


@pytest.fixture(scope="session")
def session_converted(tmp_path_factory):
    paddle.seed(7)
    context = pruned_context(Pointwise(), tmp_path_factory.mktemp("mnn"), SPEC)
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
