"""`examples/android`: its Java and native code, compiled and run in the Java virtual machine of this machine."""

import os
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from paddle_sparse_cb import Detector

from ..deploy.compiling import lite_library
from . import android_api
from .conftest import THRESHOLD

pytestmark = pytest.mark.xdist_group("examples/android")
ANDROID = Path(__file__).parents[2] / "examples" / "android"
JAVA = ANDROID / "src" / "main" / "java" / "com" / "example" / "detector"
# Prints the boxes in an image; what it reads is what Bitmap.getPixels returns. Then uses a detector wrongly.
MAIN = """
import com.example.detector.Detector;
import java.awt.image.BufferedImage;
import java.nio.charset.StandardCharsets;
public class Main {
    public static void main(String[] paths) throws Exception {
        BufferedImage image = javax.imageio.ImageIO.read(new java.io.File(paths[2]));
        int width = image.getWidth();
        int height = image.getHeight();
        int[] pixels = image.getRGB(0, 0, width, height, null, 0, width);
        Detector detector = new Detector(paths[0], paths[1]);
        for (Detector.Box box : detector.detect(pixels, width, height)) {
            String corners = box.x1 + " " + box.y1 + " " + box.x2 + " " + box.y2;
            System.out.write((box.score + " " + corners + " " + box.label + "\\n").getBytes(StandardCharsets.UTF_8));
        }
        System.out.flush();
        expectError(() -> detector.detect(pixels, width, height + 1));
        detector.close();
        detector.close();
        expectError(() -> detector.detect(pixels, width, height));
    }
    private static void expectError(Runnable action) {
        try {
            action.run();
        } catch (IllegalStateException error) {
            return;
        }
        throw new AssertionError();
    }
}
"""


@pytest.fixture(scope="module")
def javac():
    """The Java compiler, of a JDK with the header files of JNI."""
    found = shutil.which("javac") or pytest.skip("no Java compiler")
    return Path(found).resolve()


@pytest.fixture(scope="module")
def detect(javac, yaml_cpp, paddle_lite, tmp_path_factory):
    """The command that runs Detector.java with the native library that CMakeLists.txt builds; and its environment."""
    python = Path(sysconfig.get_config_var("LIBDIR") or "", sysconfig.get_config_var("INSTSONAME") or "")
    if python.suffix == ".a" or not python.is_file():
        pytest.skip("Paddle-Lite's library for x86 needs a shared library of Python")
    if not shutil.which("cmake"):
        pytest.skip("no CMake")
    folder = tmp_path_factory.mktemp("android")
    headers = javac.parent.parent / "include"
    definitions = {
        "PADDLE_LITE": paddle_lite,
        "YAML_CPP": yaml_cpp,
        "CMAKE_CXX_FLAGS": f"-Wall -Wextra -Werror -isystem {headers} -isystem {headers / 'linux'}",
    }
    options = [f"-D{name}={value}" for name, value in definitions.items()]
    source, build = ANDROID / "src" / "main" / "cpp", folder / "build"
    for command in (["-S", source, "-B", build, *options], ["--build", build]):
        subprocess.run(["cmake", *command], check=True, stdout=subprocess.DEVNULL)
    (folder / "Main.java").write_text(MAIN)
    (folder / "liblite_pybind.so").symlink_to(lite_library())  # the name that the library has for the linker
    subprocess.run([javac, "-d", folder, folder / "Main.java", JAVA / "Detector.java"], check=True)
    searched = [folder, lite_library().parent, lite_library().parent / "libs"]
    environment = {**os.environ, "LD_PRELOAD": str(python), "LD_LIBRARY_PATH": os.pathsep.join(map(str, searched))}
    java = javac.parent / "java"
    return [java, "-Xcheck:jni", f"-Djava.library.path={build}", "-cp", folder, "Main"], environment


def run(detect, *arguments):
    command, environment = detect
    return subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_the_boxes_are_those_of_python(detect, coco_nb, coco_model, infer_cfg, photographs, tmp_path):
    content = yaml.safe_load(infer_cfg.read_text())
    content["label_list"][8] = "小船 🛶"  # boat
    config = tmp_path / "infer_cfg.yml"
    config.write_text(yaml.safe_dump(content, allow_unicode=True))
    done = run(detect, coco_nb, config, photographs[0])
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stdout + done.stderr  # of -Xcheck:jni
    lines = [line.split(" ", 5) for line in done.stdout.splitlines()]
    expected = Detector(coco_model).predict(photographs[0], threshold=THRESHOLD)
    assert [line[5].replace("小船 🛶", "boat") for line in lines] == [box.label for box in expected]
    assert "小船 🛶" in done.stdout
    for line, box in zip(lines, expected):
        assert float(line[0]) == pytest.approx(box.score, abs=0.005)
        assert [float(value) for value in line[1:5]] == pytest.approx(box.box, abs=0.5)


@pytest.mark.slow
def test_a_file_that_cannot_be_used_is_an_exception(detect, coco_nb, infer_cfg, photographs, tmp_path):
    done = run(detect, coco_nb, tmp_path / "none.yml", photographs[0])
    assert done.returncode == 1
    assert re.search(r"IllegalStateException: .*none\.yml: bad file", done.stderr)
    done = run(detect, tmp_path / "none.nb", infer_cfg, photographs[0])
    assert re.search(r"IllegalStateException: .*none\.nb: cannot be read", done.stderr)


def test_the_activity_compiles_against_the_stated_part_of_androids_api(javac, tmp_path):
    sources = [*android_api.write(tmp_path / "api"), *JAVA.glob("*.java")]
    command = [javac, "--release", "11", "-Xlint:all", "-Werror", "-d", tmp_path / "out", *sources]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "com" / "example" / "detector" / "MainActivity.class").is_file()


def test_versions_are_pinned_and_the_files_name_each_other():
    gradle = (ANDROID / "build.gradle").read_text()
    assert re.search(r"id 'com\.android\.application' version '\d+\.\d+\.\d+'", gradle)
    assert re.search(r"ndkVersion '\d+\.\d+\.\d+'", gradle)
    assert re.search(
        r"distributionSha256Sum=[0-9a-f]{64}\n", (ANDROID / "gradle/wrapper/gradle-wrapper.properties").read_text()
    )
    assert (ANDROID / re.search(r"path '(.*)'", gradle)[1]).is_file()
    (namespace,) = re.findall(r"namespace '(.*)'", gradle)
    assert (ANDROID / "src" / "main" / "java" / namespace.replace(".", "/")) == JAVA
    manifest = ElementTree.parse(ANDROID / "src" / "main" / "AndroidManifest.xml")
    name = manifest.find(".//activity").get("{http://schemas.android.com/apk/res/android}name")
    assert (JAVA / f"{name.lstrip('.')}.java").is_file()
    assert manifest.find(".//uses-permission") is None  # the photograph stays on the phone
