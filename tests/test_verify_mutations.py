"""No damage to the files of a training goes unnoticed: those known, and some at random (`make soak` makes more)."""

import shutil

import pytest
import verify_mutations

pytestmark = pytest.mark.xdist_group("verify_mutations")
KNOWN = verify_mutations.known_mutations()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    return verify_mutations.train(folder)


@pytest.fixture
def copy(trained, tmp_path):
    return shutil.copytree(trained.output, tmp_path / "copy")


def test_an_undamaged_copy_passes(trained, copy):
    assert verify_mutations.problems(trained, copy) == []


@pytest.mark.parametrize("name", KNOWN)
def test_known_damage_is_found(trained, copy, name):
    KNOWN[name](copy)
    assert verify_mutations.problems(trained, copy)


def test_random_damage_is_found(trained, tmp_path):
    for name, damage in verify_mutations.random_mutations(30, trained.output, seed=1):
        copy = shutil.copytree(trained.output, tmp_path / "copy")
        damage(copy)
        assert verify_mutations.problems(trained, copy), name
        shutil.rmtree(copy)
