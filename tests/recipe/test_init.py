"""Recipes that `paddle-sparse init` writes, and all that `paddle-sparse check` finds in a recipe."""

import json
import re
import shutil

import pytest
from helpers import RECIPES

from paddle_sparse_cb import InputError
from paddle_sparse_cb.cli import main
from paddle_sparse_cb.detection.datasets import samples
from paddle_sparse_cb.detection.datasets.summary import DataSummary
from paddle_sparse_cb.recipe.build import build
from paddle_sparse_cb.recipe.init import init
from paddle_sparse_cb.recipe.preflight import check_trainable
from paddle_sparse_cb.recipe.schema import read_recipe
from paddle_sparse_cb.recipe.starter import choose_settings

TREES = RECIPES / "picodet_s_416_trees_sparse75.yml"


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Ten tiles with trees, in one COCO file."""
    folder = tmp_path_factory.mktemp("data") / "my trees: 10"
    (folder / "images").mkdir(parents=True)
    trees = samples.resolve("trees_256")
    content = json.loads((trees / "train.json").read_text())
    content["images"] = content["images"][:10]
    ids = {image["id"] for image in content["images"]}
    content["annotations"] = [one for one in content["annotations"] if one["image_id"] in ids]
    for image in content["images"]:
        shutil.copy(trees / "images" / image["file_name"], folder / "images")
    (folder / "annotations.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def recipe(folder, photographs, capsys):
    assert main(["init", "--data", str(photographs)]) == 0
    capsys.readouterr()
    return "my_trees_10_sparse75.yml"


def run(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    return code, capsys.readouterr()


def test_init_says_what_it_found_and_what_to_do_next(folder, photographs, capsys):
    code, printed = run(capsys, "init", "--data", photographs)
    assert code == 0
    assert f"COCO annotations in {photographs}:\n  training    8 images, " in printed.out
    assert "2 of 10 images, drawn at random, are for the evaluation" in printed.out
    assert "my_trees_10.yml: dense, 256 x 256 pixels, 75 x 4 steps" in printed.out
    assert printed.out.splitlines()[-2].strip() == "paddle-sparse train my_trees_10_sparse75.yml"
    assert {path.name for path in folder.iterdir()} == {
        "my_trees_10.yml",
        "my_trees_10_sparse75.yml",
        "my_trees_10_data",
    }
    code, printed = run(capsys, "init", "--data", photographs)
    assert code == 2
    assert printed.err == "paddle-sparse: my_trees_10.yml exists; choose another --name or --output\n"


def test_the_recipes_are_trainable_and_every_value_is_explained(recipe, folder):
    sparse = read_recipe(recipe)
    for one in (sparse, sparse.dense):
        check_trainable(build(one))
    assert sparse.dense.content["PicoHeadV2"]["static_assigner_epoch"] == 25
    assert sparse.content["PicoHeadV2"]["static_assigner_epoch"] == 0
    assert sparse.content["num_classes"] == 1
    assert sparse.sparsity["pruning_epochs"] + sparse.sparsity["tunning_epochs"] == sparse.content["epoch"] == 75
    lines = (folder / recipe).read_text().splitlines()
    values = [line for line in lines if ": " in line and not line.startswith(("#", "_BASE_"))]
    assert [line for line in values if "#" not in line] == ["  nms: True"]


def test_an_initialized_recipe_has_no_problems(recipe, capsys):
    code, printed = run(capsys, "check", recipe)
    assert code == 0, printed.out
    assert "TrainDataset: 8 images, " in printed.out
    assert "plan: 40 of 98 weights are pruned" in printed.out
    assert "error" not in printed.out


def test_check_reports_everything_at_once(recipe, folder, capsys):
    annotations = folder / "my_trees_10_data" / "val.json"
    content = json.loads(annotations.read_text())
    content["images"][0]["file_name"] = "images/gone.png"
    content["annotations"][0]["category_id"] = 5
    annotations.write_text(json.dumps(content))
    code, printed = run(
        capsys,
        *("check", recipe, "--json", "-o", "epoch=0", "log_iter=x", "Sparsity.ratio=75", "Sparsity.ratioz=1"),
        *("LearningRate.base_rate=1", "num_classes=3", "TrainReader.batch_size=9", "export.nms=7"),
        *("-o", "Distillation.featurez=1"),
    )
    assert code == 2
    problems = json.loads(printed.out)
    texts = "\n".join(problem["text"] for problem in problems if problem["is_error"])
    for expected in (
        "epoch must be a whole number of at least 1, got 0",
        "log_iter must be a whole number of at least 1, got 'x'",
        "ratio must be a fraction from 0.0 to below 1, got 75 (did you mean 0.75?)",
        "Sparsity: unknown argument 'ratioz'; did you mean 'ratio'?",
        "Distillation: unknown argument 'featurez'; did you mean 'features'?",
        "unknown key 'base_rate' in LearningRate; did you mean 'base_lr'?",
        "export.nms must be true or false, got 7",
        "num_classes is 3, but TrainDataset has 1 classes",
        "TrainReader.batch_size is 9, more than the 8 images with boxes",
        "EvalDataset: images are not there",
        "EvalDataset: annotations with a category that is not listed",
    ):
        assert expected in texts
    assert printed.err.startswith(f"paddle-sparse: {recipe}: {sum(problem['is_error'] for problem in problems)} errors")


@pytest.mark.parametrize(
    ("options", "messages"),
    [
        (
            """save_dir=/tmp Sparsity.pruning_epochs=99 OptimizerBuilder.optimizer.type=Adamm pretrain_weights=/none
            TestReader.inputs_def.image_shape=[1,3,100,100]""",
            """error: .*would be reached after
            error: .*Adamm
            error: .*in multiples of 32
            error: no weights at /none""",
        ),
        (
            """Sparsity.scope=erk TestReader.inputs_def.image_shape=[1,3,32,32] pretrain_weights=null
            TrainReader.sample_transforms=[Flip] EvalDataset.anno_path=none.json""",
            """error: .*Paddle-Lite would keep .* dense
            warning: .* boxes of less than 4 pixels at the input size 32 x 32
            warning: pretrain_weights is missing; pruning assumes a converged network
            error: TrainReader: cannot be created
            error: EvalDataset: no annotations at .*none.json""",
        ),
        (
            "LCNet.scale=wide EvalDataset.dataset_dir=sample:none EvalReader.batch_size=x",
            """error: EvalReader.batch_size must be a whole number of at least 1, got 'x'
            error: EvalDataset: sample:none: no such sample""",
        ),
        ("LCNet.scale=wide", "error: PicoDet: cannot be created"),
        ("pretrain_weights=recipe:none.yml", "error: .*none.yml: no such recipe"),
    ],
)
def test_check_builds_each_part_by_itself(options, messages, folder, capsys):
    code, printed = run(capsys, "check", TREES, "-o", *options.split())
    assert code == 2
    for message in messages.splitlines():
        assert re.search(message.strip(), printed.out), printed.out
    assert list(folder.iterdir()) == []


def test_problems_of_the_dense_recipe_are_found_too(recipe, folder, capsys):
    text = (folder / "my_trees_10.yml").read_text()
    (folder / "my_trees_10.yml").write_text(text + "\nSpasity: {ratio: 1}\n")
    code, printed = run(capsys, "check", recipe)
    assert code == 2
    assert "unknown key 'Spasity'" in printed.out


def test_data_that_a_training_would_move_are_found(recipe, photographs, folder, capsys):
    output = folder / "output" / "my_trees_10_sparse75"
    shutil.copytree(photographs / "images", output / "pictures")
    data = {
        "dataset_dir": str(output),
        "image_dir": "pictures",
        "anno_path": str(folder / "my_trees_10_data/train.json"),
    }
    code, printed = run(capsys, "check", recipe, "-o", *(f"TrainDataset.{key}={value}" for key, value in data.items()))
    assert code == 2
    assert f"TrainDataset: {output / 'pictures'} is in the output folder" in printed.out


def test_check_finds_all_defects_of_voc_files(folder, capsys):
    lines = ["a.jpg", "none.jpg none.xml", "b.jpg b.xml"]
    (folder / "list.txt").write_text("\n".join(lines))
    (folder / "labels.txt").write_text("cat\n")
    (folder / "b.jpg").write_bytes(b"")
    (folder / "b.xml").write_text("<a><object><name>dog</name></object></a>")
    block = f"{{name: VOCDataSet, dataset_dir: {folder}, image_dir: '', anno_path: list.txt, label_list: labels.txt}}"
    code, printed = run(capsys, "check", TREES, "-o", f"TrainDataset={block}", "metric=VOC")
    assert code == 2
    assert "TrainDataset: lines of " in printed.out
    assert f"2 x TrainDataset: files that {folder}/list.txt names are not there" in printed.out
    assert "1 x TrainDataset: annotations cannot be used" in printed.out


def test_settings_fit_the_data():
    def summary(**changes):
        values = {"images": 1000, "empty": 0, "boxes": {"a": 5}, "width": 1920, "height": 1080, "small_share": 0.2}
        return DataSummary(**{**values, **changes})

    assert choose_settings(summary(), "cpu", 2).side == 256
    assert choose_settings(summary(small_share=0.04), "cpu", 2).side == 416  # 16 pixels
    assert choose_settings(summary(small_share=0.001), "cpu", 2).side == 640
    small = choose_settings(summary(small_share=0.04, width=300, height=200), "cpu", 2)
    assert small.side == 320  # larger inputs would add nothing
    tiny = choose_settings(summary(width=96, height=64), "cpu", 2)
    assert (tiny.side, tiny.sides) == (96, (96,))
    cpu, gpu = (choose_settings(summary(), device, 8) for device in ("cpu", "gpu"))
    assert (cpu.batch, cpu.steps, cpu.epochs, cpu.workers) == (8, 125, 12, 4)
    assert (gpu.batch, gpu.rate) == (32, 0.002)
    few = choose_settings(summary(images=6), "cpu", 2)
    assert (few.batch, few.steps, few.epochs) == (1, 6, 50)
    assert few.rate < cpu.rate


@pytest.mark.parametrize(("name", "message"), [("a b", "--name must consist of"), ("../x", "--name must consist of")])
def test_names_that_leave_the_folder_are_refused(name, message, folder, photographs):
    with pytest.raises(InputError, match=message):
        init(photographs, folder, name)
