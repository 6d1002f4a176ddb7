import pytest

from paddle_sparse_cb.recipe import catalogue
from paddle_sparse_cb.recipe.catalogue import list_recipes


@pytest.mark.parametrize(("name", "description"), list_recipes().items())
def test_each_recipe_is_described_in_a_line_that_fits_a_terminal(name, description):
    assert description.endswith(".")
    assert 20 < len(description) <= 110
    assert list(list_recipes().values()).count(description) == 1


def test_hidden_files_are_no_recipes(tmp_path, monkeypatch):
    monkeypatch.setattr(catalogue, "FOLDER", tmp_path)
    (tmp_path / "mine.yml").write_bytes(b"# Mine \xff.\n")
    (tmp_path / ".#mine.yml").symlink_to("nowhere")  # an editor's lock
    (tmp_path / "._mine.yml").write_bytes(b"\xff")
    assert list_recipes() == {"mine": "Mine \ufffd."}
