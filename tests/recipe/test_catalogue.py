import pytest

from paddle_sparse_cb.recipe.catalogue import list_recipes


@pytest.mark.parametrize(("name", "description"), list_recipes().items())
def test_each_recipe_is_described_in_a_line_that_fits_a_terminal(name, description):
    assert description.endswith(".")
    assert 20 < len(description) <= 110
    assert list(list_recipes().values()).count(description) == 1
