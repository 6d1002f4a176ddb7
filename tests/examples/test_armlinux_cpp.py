"""`examples/armlinux_cpp`, compiled and run on this machine, does what `Detector` does."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from paddle_sparse_cb import Detector
from paddle_sparse_cb.detection.infer_config import InferConfig, read_infer_config
from paddle_sparse_cb.detection.predict import Preprocessor, find_boxes, read_image
from paddle_sparse_cb.errors import PipelineError
from paddle_sparse_cb.utils.packages import DebianPackage, fetch_debian_package

from ..deploy.compiling import call_main, lite_library
from .conftest import THRESHOLD

pytestmark = pytest.mark.xdist_group("examples/armlinux_cpp")
SOURCES = Path(__file__).parents[2] / "examples" / "armlinux_cpp"
STB = DebianPackage(
    "libstb-dev",
    "0.0~git20220908.8b5f1f3+ds-1",
    "4f85f82942c61845ac96d64d722ef1b2f4897d6662cb98bc5ff78596b8fbb144",
    1,
)
# What is called from here: a configuration in a file; an image or rows; where the result goes.
PARTS = """
#include "detector.h"
extern "C" int preprocess(const char* path, int height, int width, const uint8_t* pixels, float* input) {
  try {
    const detector::Config config = detector::read_config(path);
    const detector::Image image{height, width, {pixels, pixels + height * width * 3}};
    const std::vector<float> found = detector::preprocess(image, config);
    std::copy(found.begin(), found.end(), input);
    const auto factor = detector::scale_factor(image, config);
    std::copy(factor.begin(), factor.end(), input + found.size());
    return 0;
  } catch (const std::exception& error) {
    return 1;
  }
}
extern "C" int find_boxes(const char* path, int height, int width, const float* rows, int count, float* found) {
  try {
    int number = 0;
    for (const auto& box : detector::find_boxes(rows, count, {height, width, {}}, detector::read_config(path))) {
      for (float value : {box.score, box.x1, box.y1, box.x2, box.y2}) *found++ = value;
      ++number;
    }
    return number;
  } catch (const std::exception& error) {
    return -1;
  }
}
"""


@pytest.fixture(scope="session")
def parts(yaml_cpp, tmp_path_factory):
    """The functions of detector.h, in a library."""
    compiler = shutil.which("g++") or shutil.which("c++") or pytest.skip("no C++ compiler")
    folder = tmp_path_factory.mktemp("parts")
    (folder / "parts.cpp").write_text(PARTS)
    options = ["-std=c++14", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", f"-I{SOURCES}"]
    library = [f"-isystem{yaml_cpp / 'include'}", f"-L{yaml_cpp / 'lib'}", f"-Wl,-rpath,{yaml_cpp / 'lib'}"]
    source, output = folder / "parts.cpp", folder / "parts.so"
    subprocess.run([compiler, *options, *library, source, "-lyaml-cpp", "-o", output], check=True)
    return ctypes.CDLL(str(output))


def pointer(array):
    return ctypes.c_void_p(array.ctypes.data)


def preprocess(parts, path, image):
    """What the example makes of an image: the input `image` and `scale_factor`; None if it refuses the file."""
    resize = next(one for one in yaml.safe_load(path.read_text())["Preprocess"] if one["type"] == "Resize")
    height, width = resize["target_size"]
    found = np.zeros(3 * height * width + 2, np.float32)
    pixels = np.ascontiguousarray(image)
    code = parts.preprocess(str(path).encode(), *image.shape[:2], pointer(pixels), pointer(found))
    return None if code else (found[:-2].reshape(3, height, width), found[-2:])


@pytest.mark.parametrize("interpolation", [1, 2])
@pytest.mark.parametrize("size", [(416, 416), (96, 160), (700, 900), (427, 640)])
@pytest.mark.parametrize("is_scale", [True, False])
def test_the_input_of_the_network_is_that_of_python(size, interpolation, is_scale, parts, photographs, tmp_path):
    std = np.array([0.229, 0.224, 0.225]) * (1 if is_scale else 255)
    resize = {"type": "Resize", "target_size": list(size), "keep_ratio": False, "interp": interpolation}
    normalize = {"type": "NormalizeImage", "is_scale": is_scale, "mean": [0.485, 0.456, 0.406], "std": std.tolist()}
    config = InferConfig((resize, normalize, {"type": "Permute"}), ("größe: a", "树"))
    config.write(tmp_path / "infer_cfg.yml")
    image = read_image(photographs[0])
    expected = Preprocessor(config)(image)
    found, factor = preprocess(parts, tmp_path / "infer_cfg.yml", image)
    grey = np.abs(found - expected["image"][0]) * std[:, None, None] * (255 if is_scale else 1)
    assert grey.max() < 1.01  # OpenCV computes with 11 binary digits, and cuts off some more if it is linear
    assert (grey > 0.5).mean() < (0.01 if interpolation == 2 else 0.15)
    assert factor == pytest.approx(expected["scale_factor"][0], rel=1e-6)


@pytest.mark.parametrize(
    ("step", "changes"),
    [
        ("Resize", {"keep_ratio": True}),
        ("Resize", {"interp": 3}),
        ("Resize", {"target_size": [416]}),
        ("Resize", {"type": "Pad"}),
        ("NormalizeImage", {"mean": [0.5]}),
        ("NormalizeImage", {"norm_type": "none"}),
        ("Permute", {"type": "PadStride"}),
    ],
)
def test_preprocessing_that_is_not_implemented_is_refused(step, changes, parts, infer_cfg, photographs, tmp_path):
    content = yaml.safe_load(infer_cfg.read_text())
    next(one for one in content["Preprocess"] if one["type"] == step).update(changes)
    path = tmp_path / "infer_cfg.yml"
    path.write_text(yaml.safe_dump(content))
    image = read_image(photographs[0])
    found = np.zeros(3 * 416 * 416 + 2, np.float32)
    arguments = str(path).encode(), *image.shape[:2], pointer(image), pointer(found)
    assert parts.preprocess(*arguments) == 1
    path.write_text(infer_cfg.read_text())
    assert parts.preprocess(*arguments) == 0
    path.write_text(infer_cfg.read_text().replace("arch: GFL", "arch: PicoDet"))
    assert parts.preprocess(*arguments) == 1


def test_boxes_are_filtered_clipped_and_sorted_as_in_python(parts, infer_cfg):
    random = np.random.RandomState(0)
    rows = random.uniform(-50, 700, (200, 6)).astype(np.float32)
    rows[:, 0], rows[:, 1] = random.randint(-1, 80, 200), random.permutation(200) / 200
    found = np.zeros((200, 5), np.float32)
    size = 427, 640
    count = parts.find_boxes(str(infer_cfg).encode(), *size, pointer(rows), 200, pointer(found))
    expected = find_boxes({"boxes": rows}, {}, read_infer_config(infer_cfg), size, THRESHOLD)
    assert 20 < count < 150
    assert found[:count].tolist() == [[pytest.approx(box.score), *map(pytest.approx, box.box)] for box in expected]
    rows[7, :2] = 80, 1.0  # a class without a name
    assert parts.find_boxes(str(infer_cfg).encode(), *size, pointer(rows), 200, pointer(found)) == -1
    rows[:] = np.nan
    assert parts.find_boxes(str(infer_cfg).encode(), *size, pointer(rows), 200, pointer(found)) == 0


@pytest.fixture(scope="session")
def detect(yaml_cpp, paddle_lite, tmp_path_factory):
    """The command that runs the program as CMakeLists.txt builds it, with Paddle-Lite's library for x86."""
    if not shutil.which("cmake"):
        pytest.skip("no CMake")
    try:
        stb = fetch_debian_package(STB) / "usr" / "include" / "stb"
    except PipelineError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("detect")
    definitions = {
        "PADDLE_LITE": paddle_lite,
        "YAML_CPP": yaml_cpp,
        "STB": stb,
        "CMAKE_CXX_FLAGS": "-fPIC -Wall -Wextra -Werror",
        "CMAKE_EXE_LINKER_FLAGS": f"-shared -Wl,-rpath,{yaml_cpp / 'lib'}",
    }
    options = [f"-D{name}={value}" for name, value in definitions.items()]
    for command in (["-S", SOURCES, "-B", folder / "build", *options], ["--build", folder / "build"]):
        subprocess.run(["cmake", *command], check=True, stdout=subprocess.DEVNULL)
    return call_main(lite_library(), folder / "build" / "detect")


def run(command, *arguments):
    return subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True)


@pytest.mark.slow
def test_the_program_finds_the_boxes_that_python_finds(detect, coco_nb, coco_model, infer_cfg, photographs):
    detector = Detector(coco_model)
    for photograph in photographs:
        done = run(detect, coco_nb, infer_cfg, photograph)
        assert done.returncode == 0, done.stderr
        lines = [line.split(" ", 5) for line in done.stdout.splitlines()]
        expected = detector.predict(photograph, threshold=THRESHOLD)
        assert [line[5] for line in lines] == [box.label for box in expected] != []
        for line, box in zip(lines, expected):
            assert float(line[0]) == pytest.approx(box.score, abs=0.005)
            assert [float(value) for value in line[1:5]] == pytest.approx(box.box, abs=0.5)


@pytest.mark.slow
def test_what_the_program_cannot_use_is_one_line(detect, coco_nb, infer_cfg, photographs, tmp_path):
    (tmp_path / "bad").write_bytes(b"no image")
    Image.open(photographs[0]).save(tmp_path / "photo.jpg")
    for arguments, code, message in (
        ((), 2, "usage: "),
        ((coco_nb, infer_cfg, tmp_path / "none.jpg"), 1, "none.jpg: can't fopen"),
        ((coco_nb, infer_cfg, tmp_path / "bad"), 1, "bad: unknown image type"),
        ((coco_nb, tmp_path / "none.yml", photographs[0]), 1, "none.yml"),
        ((coco_nb, tmp_path / "bad", photographs[0]), 1, "bad"),
        ((tmp_path / "none.nb", infer_cfg, photographs[0]), 1, "none.nb: cannot be read"),
        ((coco_nb, infer_cfg, tmp_path / "photo.jpg"), 0, ""),
    ):
        done = run(detect, *arguments)
        assert done.returncode == code, done.stderr
        assert message in done.stderr
        assert done.stderr.count("\n") == (1 if code else 0)
