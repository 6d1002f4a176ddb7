"""What `import paddle_sparse_cb` costs and provides."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import CORE_ONLY, cpu_seconds


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()


def test_importing_the_package_imports_no_heavy_packages_except_paddles():
    heavy = {"ppdet", "paddleslim", "matplotlib", "MNN", "pycocotools", "cv2", "tensorboardX"}
    # The callbacks import everything that a training without a recipe needs.
    ours, paddles = (
        set(run(f"import sys, {name}; print(*sys.modules)"))
        for name in ("paddle_sparse_cb; paddle_sparse_cb.SparsityCallback", "paddle")
    )
    assert not (ours - paddles) & heavy


def test_importing_the_package_and_asking_for_its_version_imports_no_paddle():
    code = "import sys, paddle_sparse_cb; paddle_sparse_cb.__version__; dir(paddle_sparse_cb); print(*sys.modules)"
    assert not {"paddle", "numpy", "ppdet"} & set(run(code))


def test_type_checkers_and_the_interpreter_find_the_same_names():
    import paddle_sparse_cb

    tree = ast.parse(Path(paddle_sparse_cb.__file__).read_text())
    [checked] = [node for node in tree.body if isinstance(node, ast.If)]
    imported = {alias.name for node in checked.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert imported | {"__version__"} == set(paddle_sparse_cb.__all__) <= set(dir(paddle_sparse_cb))


@pytest.mark.slow
@pytest.mark.serial
def test_importing_the_package_takes_at_most_a_quarter_longer_than_importing_paddle():
    paddle, package = cpu_seconds(
        ["-c", "import zlib, paddle"], ["-c", "from paddle_sparse_cb import SparsityCallback"]
    )
    assert package < 1.25 * paddle


def test_images_and_archives_can_be_read_after_the_import():
    """Paddle 2.6 brings a zlib; when the system's is loaded after it, PNG files and zip archives cannot be read."""
    code = (
        "import {}, zlib, paddle, cv2, numpy; done, png = cv2.imencode('.png', numpy.zeros((64, 64, 3), 'uint8')); "
        "print(cv2.imdecode(png, 1) is not None and zlib.decompress(zlib.compress(b'abc' * 999)) == b'abc' * 999)"
    )
    assert run(code.format("paddle_sparse_cb")) == ["True"]


def test_all_public_names_can_be_imported():
    import paddle_sparse_cb

    for name in set(paddle_sparse_cb.__all__) - ({"Detector"} if CORE_ONLY else set()):
        assert getattr(paddle_sparse_cb, name)
    with pytest.raises(AttributeError, match="no attribute 'SparseCallback'"):
        paddle_sparse_cb.SparseCallback  # noqa: B018


@pytest.mark.parametrize("order", ["paddle_sparse_cb, paddle", "paddle, paddle_sparse_cb"])
def test_fit_is_wrapped_before_it_is_looked_up_whichever_package_is_imported_first(order):
    """In `model.fit(callbacks=[paddle_sparse_cb.SparsityCallback()])`, `fit` comes before the callback's name."""
    assert run(f"import zlib, {order}; print(paddle.Model.fit.__wrapped__.__name__)") == ["fit"]


@pytest.mark.parametrize("module", ["checkpoints.position", "hooks"])
def test_a_module_can_be_the_first_to_import_paddle(module):
    """Paddle's import imports the callbacks, which need such modules while they are not yet complete."""
    assert run(f"import paddle_sparse_cb.{module}; print('done')") == ["done"]
