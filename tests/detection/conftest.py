import pytest
from helpers import RECIPES

from paddle_sparse_cb.detection import config


@pytest.fixture
def registry():
    """ppdet's registry with the recipe of the demo loaded."""
    content = config.read_with_bases(RECIPES / "picodet_s_416_trees.yml")
    return config.load(content, "picodet_s_416_trees.yml")
