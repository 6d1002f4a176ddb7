"""Fixtures that all tests share: small real networks and real data."""

import os
import zlib  # noqa: F401  before paddle, as the package does

from paddle_sparse_cb.utils.blas import use_vector_instructions

if "PYTEST_XDIST_WORKER" in os.environ:  # one thread per worker; before paddle reads it, and for child processes too
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    use_vector_instructions()

import numpy as np
import paddle
import pytest
from helpers import CORE_ONLY, Pointwise
from sklearn.datasets import load_digits

# Tests that need PaddleDetection, or do the same with every version of Paddle.
collect_ignore = (
    [
        "deploy/bench",
        "deploy/test_device.py",
        "deploy/test_runners.py",
        "detection",
        "doctor",
        "e2e",
        "examples",
        "recipe",
        "test_arm_emulated.py",
        "test_cli.py",
        "test_fuzz.py",
        "test_paddledetection.py",
        "test_picodet_document.py",
        "test_wheel.py",
    ]
    if CORE_ONLY
    else []
)

if "CORE_TESTS_ONLY" in os.environ:  # an environment without the extra `mnn`
    collect_ignore.append("deploy/mnn")


def pytest_collection_modifyitems(items):
    """Measures no coverage in slow tests, and runs them first under pytest-xdist.

    Measuring makes a whole run half as slow again. A long test that starts last would leave the other workers idle.
    """
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker("no_cover")
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(autouse=True)
def _seeded():
    paddle.seed(7)
    np.random.seed(7)


@pytest.fixture(autouse=True, scope="session")
def _without_waiting_for_the_disk():
    """Tests kill processes and no machines: that files are on the disk cannot be seen, and takes long on a busy one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


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
    """The first 160 digits: ten optimizer steps of 16."""
    return paddle.io.Subset(digits, range(160))
