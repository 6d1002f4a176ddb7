"""Small real networks and real data for the tests."""

import zlib  # noqa: F401  before paddle, as the package does

import numpy as np
import paddle
import pytest
from helpers import PADDLE3, Pointwise
from sklearn.datasets import load_digits

# Recipes are for Paddle 2.6: later versions are tested without PaddleDetection. By the version and not by what can be
# imported, so that on 2.6 nothing is left out unnoticed.
OF_RECIPES = ["detection", "e2e", "test_cli.py", "test_paddledetection.py", "test_picodet_document.py",
              "test_resumption.py", "test_run.py", "test_fuzz.py", "test_use_ema.py", "test_smoke.py"]
collect_ignore = OF_RECIPES if PADDLE3 else []


@pytest.fixture(autouse=True)
def _seeded():
    paddle.seed(7)
    np.random.seed(7)


@pytest.fixture
def network():
    return Pointwise()


@pytest.fixture(scope="session")
def digits():
    """The 1,797 digits of scikit-learn as [1, 8, 8] images with their labels."""
    images, labels = load_digits(return_X_y=True)
    images = paddle.to_tensor(images.reshape(-1, 1, 8, 8).astype("float32") / 16)
    return paddle.io.TensorDataset([images, paddle.to_tensor(labels.reshape(-1, 1))])


@pytest.fixture(scope="session")
def first_digits(digits):
    """160 of them: ten steps of 16."""
    return paddle.io.Subset(digits, range(160))
