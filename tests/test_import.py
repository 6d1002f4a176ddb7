"""What `import paddle_sparse_cb` costs and provides."""

import subprocess
import sys

import pytest
from helpers import cpu_seconds


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()


def test_importing_the_package_imports_no_heavy_packages_except_paddles():
    heavy = {"ppdet", "paddleslim", "matplotlib", "MNN", "pycocotools", "cv2", "tensorboardX"}
    ours, paddles = (set(run(f"import sys, {name}; print(*sys.modules)")) for name in ("paddle_sparse_cb", "paddle"))
    assert not (ours - paddles) & heavy


@pytest.mark.slow
@pytest.mark.serial
def test_importing_the_package_takes_at_most_a_quarter_longer_than_importing_paddle():
    paddle, package = cpu_seconds(["-c", "import zlib, paddle"], ["-c", "import paddle_sparse_cb"])
    assert package < 1.25 * paddle


def test_images_and_archives_can_be_read_after_the_import():
    """Paddle 2.6 brings a zlib; when the system's is loaded after it, PNG files and zip archives cannot be read."""
    code = (
        "import {}, zlib, cv2, numpy; done, png = cv2.imencode('.png', numpy.zeros((64, 64, 3), 'uint8')); "
        "print(cv2.imdecode(png, 1) is not None and zlib.decompress(zlib.compress(b'abc' * 999)) == b'abc' * 999)"
    )
    assert run(code.format("paddle_sparse_cb")) == ["True"]


def test_all_public_names_can_be_imported():
    import paddle_sparse_cb

    for name in paddle_sparse_cb.__all__:
        assert getattr(paddle_sparse_cb, name)
    with pytest.raises(AttributeError, match="no attribute 'SparseCallback'"):
        paddle_sparse_cb.SparseCallback  # noqa: B018
