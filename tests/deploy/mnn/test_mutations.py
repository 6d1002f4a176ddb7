"""No damage to `.mnn` and `.onnx` files goes unnoticed, even if the manifest is made anew (`make soak` makes more)."""

import shutil

import mnn_mutations
import pytest

pytestmark = pytest.mark.xdist_group("mnn_mutations")
KNOWN = mnn_mutations.known_mutations()


@pytest.fixture(scope="module")
def deployed(tmp_path_factory):
    return mnn_mutations.deploy(tmp_path_factory.mktemp("deployed"))


@pytest.fixture
def copy(deployed, tmp_path):
    return shutil.copytree(deployed.output, tmp_path / "copy")


def test_an_undamaged_copy_passes(deployed, copy):
    assert mnn_mutations.problems(deployed, copy) == []


@pytest.mark.parametrize("name", KNOWN)
def test_known_damage_is_found(deployed, copy, name):
    KNOWN[name](copy)
    assert "mnn" in mnn_mutations.problems(deployed, copy)


def test_random_damage_is_found(deployed, tmp_path):
    for name, damage in mnn_mutations.random_mutations(40, deployed.output, seed=1):
        copy = shutil.copytree(deployed.output, tmp_path / "copy")
        damage(copy)
        assert "mnn" in mnn_mutations.problems(deployed, copy), name
        shutil.rmtree(copy)
