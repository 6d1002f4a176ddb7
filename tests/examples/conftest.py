"""Photographs, and a detector that was trained on COCO, for the examples in other languages."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
from PIL import Image

from paddle_sparse_cb.deploy.lite.optimizer import find_optimizer, optimize
from paddle_sparse_cb.detection.datasets import samples
from paddle_sparse_cb.detection.infer_config import NAME
from paddle_sparse_cb.utils.packages import Wheel, fetch_wheel

from ..deploy.compiling import HERE, lite_library

THRESHOLD = 0.3
YAML_CPP = Wheel("cmeel-yaml-cpp", "0.8.0", "c43e13d2b32d9f3e3923e5bd79987f909dafec52b8b08c4ef0f4fdf16aab48f9", 1)


@pytest.fixture(scope="session")
def yaml_cpp():
    """The folder of yaml-cpp, with include and lib."""
    return fetch_wheel(YAML_CPP) / "cmeel.prefix"


@pytest.fixture(scope="session")
def paddle_lite(tmp_path_factory):
    """A folder like that of Paddle-Lite's inference library: the stated API, and the library of the wheel for x86."""
    folder = tmp_path_factory.mktemp("paddle_lite")
    for name in ("include", "lib"):
        (folder / "cxx" / name).mkdir(parents=True)
    shutil.copy(HERE / "api_headers" / "paddle_api.h", folder / "cxx" / "include")
    (folder / "cxx" / "lib" / "libpaddle_light_api_shared.so").symlink_to(lite_library())
    return folder


@pytest.fixture(scope="session")
def photographs(tmp_path_factory):
    """The two photographs of scikit-learn, without loss: JPEG decoders differ by a grey value."""
    folder = tmp_path_factory.mktemp("photographs")
    for path in Path(sklearn.datasets.__file__).parent.glob("images/*.jpg"):
        Image.fromarray(np.asarray(Image.open(path))).save(folder / f"{path.stem}.png")
    return sorted(folder.iterdir())


@pytest.fixture(scope="session")
def coco_model():
    """The program of PicoDet-s, 416x416, with NMS."""
    return samples.resolve("picodet_s_416_lcnet").with_suffix(".pdmodel")


@pytest.fixture(scope="session")
def coco_nb(coco_model, tmp_path_factory):
    """The same as a `.nb` file for this processor; those that the package makes are for ARM."""
    target = tmp_path_factory.mktemp("coco") / "model.nb"
    options = {"valid_targets": "x86"}
    return optimize(coco_model.with_suffix(""), target, sparse=False, optimizer=find_optimizer(), options=options)


@pytest.fixture(scope="session")
def infer_cfg(coco_model, tmp_path_factory):
    """Its `infer_cfg.yml`, with a threshold that shows a box in both photographs."""
    path = tmp_path_factory.mktemp("infer_cfg") / NAME
    text = coco_model.with_name(NAME).read_text()
    path.write_text(text.replace("draw_threshold: 0.5", f"draw_threshold: {THRESHOLD}"))
    return path
