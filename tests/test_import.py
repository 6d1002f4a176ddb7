import subprocess
import sys

import pytest


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()


def test_importing_the_package_loads_no_heavy_packages_beside_paddles():
    heavy = {"ppdet", "paddleslim", "matplotlib", "MNN", "pycocotools", "cv2", "tensorboardX"}
    ours, paddles = (set(run(f"import sys, {name}; print(*sys.modules)")) for name in ("paddle_sparse_cb", "paddle"))
    assert not (ours - paddles) & heavy


@pytest.mark.slow
def test_importing_the_package_costs_what_paddle_costs():
    code = "import time; t = time.time(); import {}; print(time.time() - t)"
    pairs = [(float(run(code.format("paddle"))[0]), float(run(code.format("paddle_sparse_cb"))[0])) for _ in range(3)]
    assert min(ours for _, ours in pairs) < 1.3 * max(paddle for paddle, _ in pairs) + 0.2


def test_images_can_be_read_after_the_import():
    """Paddle 2.6 brings a zlib; when the system's is loaded after it, PNG files and zip archives cannot be read."""
    code = ("import {}, zlib, cv2, numpy; done, png = cv2.imencode('.png', numpy.zeros((64, 64, 3), 'uint8')); "
            "print(cv2.imdecode(png, 1) is not None and zlib.decompress(zlib.compress(b'abc' * 999)) == b'abc' * 999)")
    assert run(code.format("paddle_sparse_cb")) == ["True"]


def test_the_public_names_are_there():
    import paddle_sparse_cb

    for name in paddle_sparse_cb.__all__:
        assert getattr(paddle_sparse_cb, name)
    with pytest.raises(AttributeError, match="no attribute 'SparseCallback'"):
        paddle_sparse_cb.SparseCallback  # noqa: B018
