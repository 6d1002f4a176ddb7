"""Boxes in images: from a recipe's network, from exported models, and on the command line."""

import json
import re
import shutil
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import RECIPES
from PIL import Image

from paddle_sparse_cb import Detector, InputError
from paddle_sparse_cb.cli import main
from paddle_sparse_cb.deploy.export import export
from paddle_sparse_cb.deploy.mnn.converter import convert
from paddle_sparse_cb.deploy.onnx import export_onnx
from paddle_sparse_cb.detection import config
from paddle_sparse_cb.detection.datasets import samples
from paddle_sparse_cb.detection.datasets.labels import class_names
from paddle_sparse_cb.detection.infer_config import make_infer_config
from paddle_sparse_cb.detection.network import build_network
from paddle_sparse_cb.detection.weights import load_matching, read_weights
from paddle_sparse_cb.recipe.predict_files import find_images

COCO = "picodet_s_416_coco_lcnet"  # as a name: it comes with the package
WEIGHTS = "weights=sample:picodet_s_416_lcnet"
TREES = RECIPES / "picodet_s_416_trees_sparse75.yml"


@pytest.fixture(scope="module")
def portrait():
    """A portrait in 512x600 pixels: a woman in uniform, with a tie. It comes with matplotlib."""
    folder = Path(find_spec("matplotlib").submodule_search_locations[0], "mpl-data", "sample_data")
    return folder / "grace_hopper.jpg"


@pytest.fixture(scope="module")
def theirs():
    """The folder of a model that PaddleDetection exported."""
    return samples.resolve("picodet_s_416_lcnet").parent


@pytest.fixture(scope="module")
def exported_detector(theirs):
    return Detector(theirs)


@pytest.fixture(scope="module")
def tiles():
    return samples.resolve("trees_256") / "images"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    return code, capsys.readouterr()


def as_rows(boxes):
    return [[box.score, *box.box] for box in boxes]


def test_a_model_that_paddledetection_exported_finds_a_person_and_her_tie(exported_detector, portrait):
    person, tie = exported_detector.predict(portrait)
    assert (person.label, tie.label) == ("person", "tie")
    assert person.score > 0.9
    assert person.box == pytest.approx((4, 32, 512, 600), abs=2)
    assert tie.box == pytest.approx((222, 408, 298, 533), abs=2)
    assert exported_detector.labels[:3] == ("person", "bicycle", "car")


def test_the_network_of_a_recipe_finds_what_the_exported_program_finds(exported_detector, portrait):
    network = Detector(COCO, options=[WEIGHTS])
    ours, theirs = (detector.predict(portrait, 0.3) for detector in (network, exported_detector))
    assert [box.label for box in ours] == [box.label for box in theirs]
    assert np.array(as_rows(ours)) == pytest.approx(np.array(as_rows(theirs)), abs=1e-3)


def test_pixels_give_the_boxes_of_the_file(exported_detector, portrait):
    pixels = cv2.cvtColor(cv2.imread(str(portrait)), cv2.COLOR_BGR2RGB)
    assert exported_detector.predict(pixels) == exported_detector.predict(str(portrait))
    with pytest.raises(InputError, match=r"must be a path or an array .* got float32 \[600, 512, 3\]"):
        exported_detector.predict(pixels.astype("float32"))
    with pytest.raises(InputError, match="threshold must be a fraction"):
        exported_detector.predict(pixels, 50)


@pytest.mark.slow
def test_a_program_that_was_exported_without_nms_finds_the_same_in_every_runtime(tmp_path, exported_detector, portrait):
    content = config.read_with_bases(RECIPES / f"{COCO}.yml")
    network = build_network(config.load(content, COCO))
    load_matching(network, read_weights("sample:picodet_s_416_lcnet"), "sample")
    prefix = tmp_path / "inference" / "model"
    with network.export_mode(416, 416, nms=False) as (detector, specs):
        export(detector, prefix, specs)
    make_infer_config(content, class_names(content), (416, 416)).write(prefix.with_name("infer_cfg.yml"))
    expected = exported_detector.predict(portrait, 0.2)
    onnx = export_onnx(prefix, tmp_path / "model.onnx")
    mnn = convert(onnx, tmp_path / "model_dense.mnn", sparse=False)
    for path in (prefix, prefix.with_name("model.pdiparams"), tmp_path, onnx, mnn):
        found = Detector(path).predict(portrait, 0.2)
        assert [box.label for box in found] == [box.label for box in expected]
        assert np.array(as_rows(found)) == pytest.approx(np.array(as_rows(expected)), abs=2e-2)


def test_the_documented_code_prints_the_boxes(portrait, capsys):
    text = (RECIPES.parent / "docs" / "predict.md").read_text()
    [code] = re.findall(r"```python\n(.*?)```", text, re.S)
    exec(code.replace("photo.jpg", str(portrait)))
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[-2:]] == ["person", "tie"]


def test_json_lists_the_boxes_of_each_image_and_nothing_else_is_printed(folder, theirs, portrait, tiles, capsys):
    tile = min(tiles.iterdir())
    code, printed = run(capsys, "predict", theirs, portrait, tile, "--json")
    assert code == 0
    first, second = json.loads(printed.out)
    assert first["image"] == str(portrait)
    assert [box["class"] for box in first["boxes"]] == ["person", "tie"]
    assert all(0.5 <= box["score"] <= 1 for box in first["boxes"])
    x1, y1, x2, y2 = first["boxes"][0]["box"]
    assert 0 <= x1 < x2 <= 512
    assert 0 <= y1 < y2 <= 600
    assert second == {"image": str(tile), "boxes": []}
    assert "2 boxes (person 0.97, tie 0.86)" in printed.err
    assert list(folder.iterdir()) == []  # no pictures


def test_pictures_are_written_beside_those_of_another_model(folder, theirs, portrait, capsys):
    (folder / "photos").mkdir()
    for name in ("a.jpg", "b.JPG", "readme.txt"):
        shutil.copy(portrait, folder / "photos" / name)
    code, printed = run(capsys, "predict", theirs, "photos", "--compare", COCO, "-o", WEIGHTS)
    assert code == 2
    assert "not trained yet" in printed.err  # -o is for the first one
    code, printed = run(capsys, "predict", COCO, "photos", "--compare", theirs, "-o", WEIGHTS, "--threshold", 0.6)
    assert code == 0
    assert "photos/a.jpg: 2 boxes (person 0.97, tie 0.86) -> output/predictions/a.jpg" in printed.out
    assert "2 images, 4 boxes of score 0.6 or more" in printed.out
    assert sorted(path.name for path in (folder / "output" / "predictions").iterdir()) == ["a.jpg", "b.jpg"]
    height, width = cv2.imread("output/predictions/a.jpg").shape[:2]
    assert width > 2 * 512
    assert height > 600


def test_without_boxes_the_highest_score_is_named(folder, theirs, tiles, capsys):
    code, printed = run(capsys, "predict", theirs, min(tiles.iterdir()), "--output", "pictures")
    assert code == 0
    assert "0 boxes -> pictures/" in printed.out
    assert "the highest score is 0." in printed.out.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.yml", "{photo}"], "none.yml: no such recipe"),
        (["picodet_s_416_tree", "{photo}"], "no such recipe; did you mean 'picodet_s_416_trees'?"),
        ([TREES, "{photo}"], "checkpoints/final.pdparams: not trained yet; run: paddle-sparse train"),
        (["mine.pdparams", "{photo}"], "RECIPE ... -o weights=mine.pdparams"),
        (["model.nb", "{photo}"], "a .nb file runs on ARM devices only"),
        (["model.pdmodel", "{photo}"], "model.pdmodel: no such file"),
        ([".", "{photo}"], "neither model.pdmodel nor inference/model.pdmodel is in this folder"),
        ([TREES, "none.jpg"], "none.jpg: no image file"),
        ([TREES, "*.png"], "*.png: no image file"),
        ([TREES, "/dev/zero"], "/dev/zero: no image file"),
        ([TREES, "text.jpg"], "text.jpg: not an image"),
        ([TREES, "{photo}", "--threshold", "50"], "--threshold must be a fraction from 0.0 to below 1, got 50.0"),
        ([TREES, "{photo}", "--output", "{photos}"], "is one of the images; choose another folder"),
        ([COCO, "{photo}", "--compare", "dense", "-o", WEIGHTS], "is not a recipe that starts from a dense one"),
        (["{theirs}", "{photo}", "--compare", "dense"], "is not a recipe that starts from a dense one"),
        ([TREES, "{photo}", "-o", WEIGHTS], "the prediction heads do not fit (80 classes in the file, 1 here)"),
    ],
)
def test_invalid_input_is_an_error_of_one_line(arguments, message, folder, theirs, portrait, capsys):
    (folder / "text.jpg").write_text("no image")
    places = {"photo": portrait, "photos": portrait.parent, "theirs": theirs}
    code, printed = run(capsys, "predict", *(str(argument).format(**places) for argument in arguments))
    assert code == 2
    assert message in printed.err
    assert len(printed.err.strip().splitlines()) == 1
    assert not (folder / "output").exists()


def test_a_model_without_its_settings_is_an_error_that_says_which_file_is_missing(tmp_path, theirs):
    for file in theirs.glob("model.pd*"):
        shutil.copy(file, tmp_path)
    with pytest.raises(InputError, match=r"infer_cfg.yml: no such file; the export writes it beside the model"):
        Detector(tmp_path)
    settings = (theirs / "infer_cfg.yml").read_text().replace("- 416", "- 320")
    (tmp_path / "infer_cfg.yml").write_text(settings)
    with pytest.raises(InputError, match=r"image of shape \[1, 3, 320, 320\], and the model needs \[-1, 3, 416, 416\]"):
        Detector(tmp_path).predict(np.zeros((10, 10, 3), np.uint8))


def test_images_are_found_in_folders_and_by_patterns_each_once(folder):
    for name in ("b.jpg", "a.PNG", "notes.txt", "sub/c.webp", "sub/[1].jpg"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    assert list(map(str, find_images(["."]))) == ["a.PNG", "b.jpg"]
    assert list(map(str, find_images(["b.jpg", "*.jpg", "**/*.webp"]))) == ["b.jpg", "sub/c.webp"]
    assert list(map(str, find_images(["sub/[1].jpg"]))) == ["sub/[1].jpg"]
    assert list(map(str, find_images(["notes.txt"]))) == ["notes.txt"]  # what is named is tried


def test_pictures_of_images_with_equal_names_do_not_replace_each_other(folder, theirs, portrait, capsys):
    for name in ("x/a.jpg", "y/a.jpg", "a_2.jpg"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(portrait, folder / name)
    code, _ = run(capsys, "predict", theirs, "x/a.jpg", "y/a.jpg", "a_2.jpg", "--output", "pictures")
    assert code == 0
    assert len(list((folder / "pictures").iterdir())) == 3


def test_a_photograph_beside_the_images_is_not_replaced(folder, theirs, portrait, capsys):
    Image.open(portrait).save(folder / "shot.png")
    shutil.copy(portrait, folder / "shot.jpg")
    code, output = run(capsys, "predict", theirs, "shot.png", "--output", ".")
    assert code == 2
    assert "shot.jpg exists in a folder of the images; choose another folder" in output.err
    assert (folder / "shot.jpg").read_bytes() == portrait.read_bytes()


def test_a_damaged_image_does_not_keep_the_others_from_being_predicted(folder, theirs, portrait, capsys):
    Image.open(portrait).save(folder / "damaged.png")
    content = (folder / "damaged.png").read_bytes()
    (folder / "damaged.png").write_bytes(content[: len(content) // 2])
    shutil.copy(portrait, folder / "good.jpg")
    code, output = run(capsys, "predict", theirs, "damaged.png", "good.jpg", "--json")
    assert code == 2
    assert "1 of 2 images cannot be decoded" in output.err
    damaged, good = json.loads(output.out)
    assert damaged["error"].startswith("damaged.png: ")
    assert good["boxes"]
    assert "\n1 images, " in output.err
